# Makes of the guest what an administrator makes of a gateway machine, before it boots. Sourced by start.sh, by way of a script
# that sets folders of the host (checkout, manifests, python, library, source), the name of the interpreter, the script that
# configures the network, and what sysctl.d says of forwarding, 0 or 1.
here=$checkout/tests/vm/guest/gateway
set -e
modprobe -a virtio_net virtio_blk ext4
for hidden in /etc/systemd/system /etc/sysctl.d /etc/sysusers.d; do # what the host has enabled is none of the guest's
  mkdir -p $hidden
  mount -t tmpfs tmpfs $hidden
done
printf '%s\n' "net.ipv4.ip_forward=$forwarding" "net.ipv6.conf.all.forwarding=$forwarding" >/etc/sysctl.d/forwarding.conf

mkdir -p /etc/systemd/system/guest.target.wants /etc/outgate /opt/outgate/bin /var/lib/outgate
for unit in "$here"/*.service "$here"/*.target "$checkout/deploy/systemd/outgate-gateway.service"; do
  sed "s|@here@|$here|; s|@network@|$network|" "$unit" >"/etc/systemd/system/${unit##*/}"
done
ln -s ../outgate-gateway.service /etc/systemd/system/guest.target.wants/
mkdir /etc/systemd/system/service.d # for all services: there is no journal
printf '%s\n' '[Service]' StandardOutput=append:/run/services.log >/etc/systemd/system/service.d/output.conf
mkdir /etc/systemd/system/outgate-gateway.service.d # this guest is 15 times slower than a machine
printf '%s\n' '[Service]' TimeoutStartSec=600 WatchdogSec=300 >/etc/systemd/system/outgate-gateway.service.d/patience.conf
cp "$checkout/deploy/systemd/outgate.sysusers" /etc/sysusers.d/outgate.conf
systemd-sysusers
mount /dev/vda /var/lib/outgate
cp "$manifests"/*.yaml /etc/outgate/
chown -R outgate: /etc/outgate

# The program, from folders of the host that its user may not be allowed to pass: mounted where everybody may.
for folder in python library source; do
  mkdir -p /opt/outgate/$folder
  mount --bind "${!folder}" /opt/outgate/$folder
done
printf '%s\n' '#!/bin/sh' 'export PYTHONPATH=/opt/outgate/source:/opt/outgate/library LD_LIBRARY_PATH=/opt/outgate/python/lib' \
  "exec /opt/outgate/python/bin/$interpreter -m outgate \"\$@\"" >/opt/outgate/bin/outgate
chmod 755 /opt/outgate/bin/outgate
