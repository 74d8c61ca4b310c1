// Package migrate moves records between our programs and the real open-iscsi,
// with its own iscsiadm, iscsid and files: in by import, out by export and by
// the mirror. docs/migrating.md describes what it tests.
//
// open-iscsi's files are in /etc/iscsi, so the tests have the build tag guest:
//
//	make guest-test PKG=./test/migrate
package migrate
