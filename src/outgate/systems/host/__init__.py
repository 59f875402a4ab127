"""What else lives on the machine: services that undo other people's work, limits, versions, macvlans of any owner.

Everything is read, nothing changed; but for `handover`, where another program's addresses and routes become ours.
"""
