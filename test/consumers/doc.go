// Package consumers tests what the programs that call iscsiadm need of it. It
// has two halves.
//
// The tests called TestMustHaveNN hold the requirements that these programs
// share, numbered as in docs/consumers.md, each as the programs' own parsers
// and waits see it. Most run in a temporary prefix (build tag integration);
// those that need a block device run in a guest (build tag guest).
//
// The others run the programs themselves, as Debian packages them and
// unmodified, in a guest: Ansible's module community.general.open_iscsi,
// Pacemaker's resource agent ocf:heartbeat:iscsi, libvirt's iscsi storage
// pool, the scripts of the package open-iscsi, and multipath-tools. test/deps
// puts their files into one archive, which a test unpacks over the guest's
// root: nothing of them is ever installed on the machine.
package consumers
