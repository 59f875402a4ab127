//go:build tools

// Package kube pins the servers and tools of a Kubernetes control plane that the tests run: nothing here is linked into outgate.
package kube

import (
	_ "go.etcd.io/etcd/server/v3"
	_ "k8s.io/kubernetes/cmd/kube-apiserver"
	_ "k8s.io/kubernetes/cmd/kubectl"
	_ "helm.sh/helm/v3/cmd/helm"
)
