// Package docs has the tests that run the commands which README.md and the pages
// in docs/ show. A command in a block of code is run in the guest, as it stands,
// by TestGuestRunsTheCommandsOfTheDocs, and must print what the page shows below
// it; a make target is asked of make. The table exceptions says of each other one
// why it is not run and what is looked at instead. Commands within sentences are
// checked by the command's own grammar (cmd/internal/iscsiadm).
package docs
