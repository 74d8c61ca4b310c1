// Package api has tests that hold the exported names of the library to what it
// promises: each one is documented.
package api
