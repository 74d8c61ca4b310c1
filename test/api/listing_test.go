package api

import (
	"bytes"
	"flag"
	"fmt"
	"go/ast"
	"go/printer"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the lists of exported names anew")

// TestExportedNames compares what the library exports with the lists in testdata,
// so that a change of the API is seen by whoever makes it and by whoever reads
// the commit.
func TestExportedNames(t *testing.T) {
	seen := make(map[string]bool)
	for _, p := range library(t) {
		file := filepath.Join("testdata", strings.ReplaceAll(p.path, "/", "_")+".txt")
		seen[file] = true
		got := p.list(t)
		if *update {
			if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Errorf("package %s is new: if that is meant, run \"make api\" and commit %s", p.path, file)
			continue
		}
		if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")); diff != "" {
			t.Errorf("package %s exports other names than before (-before +now). If that is meant, run \"make api\" and commit %s\n%s", p.path, file, diff)
		}
	}
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		switch {
		case seen[file]:
		case *update:
			if err := os.Remove(file); err != nil {
				t.Error(err)
			}
		default:
			t.Errorf("%s lists a package that is gone: if that is meant, run \"make api\"", file)
		}
	}
}

// list returns the exported names of a package, sorted, one a line, each with
// what users of it depend on: the signature of a function, the type of a field,
// the value of a constant as the source has it.
func (p goPackage) list(t *testing.T) string {
	l := lister{t: t, p: p}
	for _, f := range p.files {
		for _, d := range f.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				l.function(d)
			case *ast.GenDecl:
				switch d.Tok {
				case token.CONST:
					l.constants(d)
				case token.VAR:
					l.variables(d)
				case token.TYPE:
					l.types(d)
				}
			}
		}
	}
	slices.Sort(l.lines)
	return strings.Join(l.lines, "\n") + "\n"
}

type lister struct {
	t     *testing.T
	p     goPackage
	lines []string
}

func (l *lister) add(format string, args ...any) {
	l.lines = append(l.lines, fmt.Sprintf(format, args...))
}

// text returns the source of a node on one line.
func (l *lister) text(n ast.Node) string {
	var b bytes.Buffer
	if err := printer.Fprint(&b, l.p.fset, n); err != nil {
		l.t.Fatal(err)
	}
	return strings.Join(strings.Fields(b.String()), " ")
}

// typ returns " " and the source of a type, or nothing where there is none.
func (l *lister) typ(e ast.Expr) string {
	if e == nil {
		return ""
	}
	return " " + l.text(e)
}

func (l *lister) function(d *ast.FuncDecl) {
	if !d.Name.IsExported() {
		return
	}
	signature := strings.TrimPrefix(l.text(d.Type), "func")
	typ, pointer := receiver(d)
	switch {
	case typ == "":
		l.add("func %s%s", d.Name.Name, signature)
	case !ast.IsExported(typ):
	case pointer:
		l.add("method (*%s) %s%s", typ, d.Name.Name, signature)
	default:
		l.add("method (%s) %s%s", typ, d.Name.Name, signature)
	}
}

// constants lists a group: a constant without a value of its own has that of the
// one above with another iota, which is its place in the group.
func (l *lister) constants(d *ast.GenDecl) {
	var typ ast.Expr
	var values []ast.Expr
	for iota, s := range d.Specs {
		s := s.(*ast.ValueSpec)
		if len(s.Values) > 0 {
			typ, values = s.Type, s.Values
		}
		for i, n := range s.Names {
			if !n.IsExported() {
				continue
			}
			value := l.text(values[i])
			if strings.Contains(value, "iota") {
				value += fmt.Sprintf(" (iota %d)", iota)
			}
			l.add("const %s%s = %s", n.Name, l.typ(typ), value)
		}
	}
}

func (l *lister) variables(d *ast.GenDecl) {
	for _, s := range d.Specs {
		s := s.(*ast.ValueSpec)
		for _, n := range s.Names {
			if n.IsExported() {
				l.add("var %s%s", n.Name, l.typ(s.Type))
			}
		}
	}
}

func (l *lister) types(d *ast.GenDecl) {
	for _, s := range d.Specs {
		s := s.(*ast.TypeSpec)
		if !s.Name.IsExported() {
			continue
		}
		name := s.Name.Name
		if s.TypeParams != nil {
			name += "[" + l.fieldText(s.TypeParams) + "]"
		}
		switch typ := s.Type.(type) {
		case *ast.StructType:
			l.add("type %s struct", name)
			l.fields(s.Name.Name, "field", typ.Fields)
		case *ast.InterfaceType:
			l.add("type %s interface", name)
			l.fields(s.Name.Name, "method", typ.Methods)
		default:
			assign := " "
			if s.Assign.IsValid() {
				assign = " = "
			}
			l.add("type %s%s%s", name, assign, l.text(typ))
		}
	}
}

func (l *lister) fieldText(list *ast.FieldList) string {
	var all []string
	for _, f := range list.List {
		for _, n := range f.Names {
			all = append(all, n.Name+l.typ(f.Type))
		}
	}
	return strings.Join(all, ", ")
}

// fields lists the fields of a struct or the methods of an interface. Tags count:
// JSON goes by them. That there are unexported ones counts, too: a struct with
// none can be converted and compared by programs, an interface with one cannot be
// implemented by them.
func (l *lister) fields(typ, kind string, list *ast.FieldList) {
	hidden := false
	for _, f := range list.List {
		tag := ""
		if f.Tag != nil {
			tag = " " + f.Tag.Value
		}
		if len(f.Names) == 0 {
			l.add("%s %s embeds%s%s", kind, typ, l.typ(f.Type), tag)
			continue
		}
		for _, n := range f.Names {
			switch {
			case !n.IsExported():
				hidden = true
			case kind == "method":
				l.add("%s %s.%s%s", kind, typ, n.Name, strings.TrimPrefix(l.text(f.Type), "func"))
			default:
				l.add("%s %s.%s%s%s", kind, typ, n.Name, l.typ(f.Type), tag)
			}
		}
	}
	if hidden {
		l.add("%s %s has unexported ones", kind, typ)
	}
}
