package api

import (
	"go/ast"
	"go/token"
	"strings"
	"testing"
)

// TestEveryExportedNameIsDocumented wants a sentence for each package, type,
// function, method, constant, variable and field that programs can name. One for
// a group of constants or variables, or for the fields that follow one another
// without an empty line, is enough. A field of a type that has a name is explained
// by that type; numbers, texts and the like need words of their own: what they
// count, in what unit.
func TestEveryExportedNameIsDocumented(t *testing.T) {
	names := 0
	for _, p := range library(t) {
		c := checker{t: t, p: p}
		c.check()
		names += c.names
	}
	if names < 1000 {
		t.Errorf("%d names looked at: the test does not find the library", names)
	}
}

type checker struct {
	t     *testing.T
	p     goPackage
	names int
}

func (c *checker) check() {
	hasDoc := false
	for _, f := range c.p.files {
		hasDoc = hasDoc || f.Doc != nil
		for _, d := range f.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				c.function(d)
			case *ast.GenDecl:
				c.group(d)
			}
		}
	}
	if !hasDoc {
		c.t.Errorf("package %s has no comment", c.p.path)
	}
}

// want reports a name without a comment.
func (c *checker) want(pos token.Pos, name string, docs ...*ast.CommentGroup) {
	c.names++
	for _, d := range docs {
		if d != nil && strings.TrimSpace(d.Text()) != "" {
			return
		}
	}
	c.t.Errorf("%s: %s.%s is not documented", c.p.fset.Position(pos), c.p.path, name)
}

func (c *checker) function(d *ast.FuncDecl) {
	name := d.Name.Name
	if !d.Name.IsExported() {
		return
	}
	if typ, _ := receiver(d); typ != "" {
		if !ast.IsExported(typ) {
			return
		}
		name = typ + "." + name
	}
	c.want(d.Pos(), name, d.Doc)
}

func (c *checker) group(d *ast.GenDecl) {
	for _, s := range d.Specs {
		switch s := s.(type) {
		case *ast.ValueSpec:
			for _, n := range s.Names {
				if n.IsExported() {
					c.want(n.Pos(), n.Name, d.Doc, s.Doc, s.Comment)
				}
			}
		case *ast.TypeSpec:
			if !s.Name.IsExported() {
				continue
			}
			doc := s.Doc
			if doc == nil && !d.Lparen.IsValid() {
				doc = d.Doc
			}
			c.want(s.Pos(), s.Name.Name, doc)
			switch typ := s.Type.(type) {
			case *ast.StructType:
				c.fields(s.Name.Name, doc, typ.Fields)
			case *ast.InterfaceType:
				c.fields(s.Name.Name, doc, typ.Methods)
			}
		}
	}
}

// fields checks the fields of a struct or the methods of an interface. A field
// shares the comment of the fields right above it. The comment of the type covers
// those that have none when it names them, or when nothing in the type has one:
// then the names speak for themselves, as in a Portal of Address and Port.
func (c *checker) fields(typ string, typDoc *ast.CommentGroup, list *ast.FieldList) {
	bare := true
	for _, f := range list.List {
		bare = bare && f.Doc == nil && f.Comment == nil
	}
	var above *ast.CommentGroup
	last := 0
	for _, f := range list.List {
		line := c.p.fset.Position(f.Pos()).Line
		if line > last+1 {
			above = nil
		}
		if f.Doc != nil {
			above = f.Doc
		}
		last = c.p.fset.Position(f.End()).Line
		for _, n := range f.Names {
			switch {
			case !n.IsExported():
			case named(f.Type), bare, mentions(typDoc, n.Name):
				c.names++
			default:
				c.want(n.Pos(), typ+"."+n.Name, f.Doc, f.Comment, above)
			}
		}
	}
}

// mentions reports whether a comment has the name as a word.
func mentions(doc *ast.CommentGroup, name string) bool {
	for _, word := range strings.FieldsFunc(doc.Text(), func(r rune) bool {
		return r != '_' && (r < '0' || r > '9' && r < 'A' || r > 'Z' && r < 'a' || r > 'z')
	}) {
		if word == name {
			return true
		}
	}
	return false
}

// named reports whether a type has a name of its own, so that its comment says
// what a field of it is. Errors are such a type.
func named(t ast.Expr) bool {
	switch t := t.(type) {
	case *ast.StarExpr:
		return named(t.X)
	case *ast.ArrayType:
		return named(t.Elt)
	case *ast.SelectorExpr:
		return t.Sel.Name != "Duration"
	case *ast.Ident:
		return ast.IsExported(t.Name) || t.Name == "error"
	}
	return false
}
