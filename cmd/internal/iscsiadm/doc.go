// Package iscsiadm is the command of that name: its argument grammar, its
// modes, what it prints and its exit codes, compatible with open-iscsi's.
//
// # Way through the code
//
// Package getopt makes a list of canonical arguments of the command line, by
// the table in flags.go; a flat urfave/cli application (app.go) feeds them, in
// order, to the setters of a request (request.go); one file a mode then does
// what the request asks for (discovery.go, discoverydb.go, node.go,
// session.go, iface.go, host.go, fw.go). Lists, trees and statistics are
// printed by the print*.go files.
//
// # Streams and codes
//
// Results go to standard output; everything that went wrong goes to standard
// error with the prefix "iscsiadm: ". Programs take a line on standard error
// for a failure, so nothing is written there by a command that succeeded. An
// error has been printed when a function of this package returns an
// *exitError; every other error is printed by the one place that ends the
// program. Lines beginning "iscsiadm: hint: " follow open-iscsi's lines and
// are ours.
//
// # Concurrency
//
// A command runs in one goroutine. Logins, logouts and rescans wait in one
// goroutine a session, which touch nothing but their own result and which the
// function that started them waits for.
package iscsiadm
