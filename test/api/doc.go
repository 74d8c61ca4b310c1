// Package api has tests that hold the exported names of the library to what it
// promises: each one is documented, and none changes by accident. The names are
// listed in testdata, one a line; "make api" writes the lists anew. docs/library.md
// tells what a change may be.
package api
