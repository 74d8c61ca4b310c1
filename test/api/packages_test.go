package api

import (
	"go/ast"
	"go/build"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const root = "../.."

// A goPackage is what one directory exports to programs, as it is on Linux.
type goPackage struct {
	path  string // "initiator/scsi"
	fset  *token.FileSet
	files []*ast.File
}

// library returns the packages that programs can import.
func library(t *testing.T) []goPackage {
	t.Helper()
	var all []goPackage
	for _, top := range []string{"initiator", "nbd", "nodedb", "pdu"} {
		err := filepath.WalkDir(filepath.Join(root, top), func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.IsDir() {
				return err
			}
			if name := d.Name(); name == "internal" || name == "testdata" {
				return filepath.SkipDir
			}
			all = append(all, load(t, path))
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return slices.DeleteFunc(all, func(p goPackage) bool { return len(p.files) == 0 })
}

func load(t *testing.T, dir string) goPackage {
	t.Helper()
	// The lists must not depend on who writes them.
	ctx := build.Default
	ctx.GOOS, ctx.GOARCH, ctx.CgoEnabled = "linux", "amd64", false
	names, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	rel, err := filepath.Rel(root, dir)
	if err != nil {
		t.Fatal(err)
	}
	p := goPackage{path: filepath.ToSlash(rel), fset: token.NewFileSet()}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		if ok, err := ctx.MatchFile(dir, filepath.Base(name)); err != nil {
			t.Fatal(err)
		} else if !ok {
			continue
		}
		f, err := parser.ParseFile(p.fset, name, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		p.files = append(p.files, f)
	}
	return p
}

// receiver returns the type of a method and whether the method is on a pointer;
// "" for a function.
func receiver(d *ast.FuncDecl) (name string, pointer bool) {
	if d.Recv == nil || len(d.Recv.List) == 0 {
		return "", false
	}
	typ := d.Recv.List[0].Type
	if star, ok := typ.(*ast.StarExpr); ok {
		typ, pointer = star.X, true
	}
	if index, ok := typ.(*ast.IndexExpr); ok { // a type parameter
		typ = index.X
	}
	id, _ := typ.(*ast.Ident)
	return id.Name, pointer
}
