package main

import (
	"strings"
	"testing"
)

func TestCountEvents(t *testing.T) {
	for _, tc := range []struct {
		name, events    string
		passed, failed  int
		skipped, detail string
	}{
		{
			name: "a test with subtests counts once",
			events: `{"Action":"pass","Package":"p","Test":"TestA/x"}
{"Action":"pass","Package":"p","Test":"TestA"}
{"Action":"pass","Package":"p"}`,
			passed: 1,
		},
		{
			name: "a failed test shows its output and is not counted again for its package",
			events: `{"Action":"output","Package":"p","Test":"TestA","Output":"wrong\n"}
{"Action":"fail","Package":"p","Test":"TestA"}
{"Action":"fail","Package":"p"}`,
			failed: 1, detail: "wrong",
		},
		{
			name: "a package that dies is a failure",
			events: `{"Action":"pass","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Output":"panic: out of luck\n"}
{"Action":"fail","Package":"p"}`,
			passed: 1, failed: 1, detail: "out of luck",
		},
		{
			name: "a package that does not build is a failure",
			events: `{"Action":"build-output","ImportPath":"p","Output":"undefined: x\n"}
{"Action":"build-fail","ImportPath":"p"}
{"Action":"fail","Package":"p"}`,
			failed: 1, detail: "FAIL p",
		},
		{
			name: "a skipped test gives its reason",
			events: `{"Action":"output","Package":"p","Test":"TestA","Output":"=== RUN   TestA\n"}
{"Action":"output","Package":"p","Test":"TestA","Output":"    a_test.go:3: no nbd\n"}
{"Action":"output","Package":"p","Test":"TestA","Output":"--- SKIP: TestA\n"}
{"Action":"skip","Package":"p","Test":"TestA"}`,
			skipped: "no nbd",
		},
		{
			name: "a skipped subtest is not hidden by its test",
			events: `{"Action":"skip","Package":"p","Test":"TestA/x"}
{"Action":"pass","Package":"p","Test":"TestA"}`,
			passed: 1, skipped: "TestA/x",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := countEvents(strings.NewReader(tc.events), &options{})
			if got.passed != tc.passed || got.failed != tc.failed {
				t.Errorf("%d passed, %d failed; want %d, %d", got.passed, got.failed, tc.passed, tc.failed)
			}
			if skipped := strings.Join(got.skipped, ";"); !strings.Contains(skipped, tc.skipped) || (tc.skipped == "") != (skipped == "") {
				t.Errorf("skipped %q, want %q", skipped, tc.skipped)
			}
			if !strings.Contains(got.detail, tc.detail) {
				t.Errorf("detail %q lacks %q", got.detail, tc.detail)
			}
		})
	}
}

func TestOnlyTimeUp(t *testing.T) {
	const timeUp = "fuzz: elapsed: 5s, execs: 1 (1/sec)\n--- FAIL: FuzzX (5.07s)\n    context deadline exceeded\nFAIL\n"
	const finding = "--- FAIL: FuzzX (0.07s)\n    --- FAIL: FuzzX (0.00s)\n        x_test.go:9: wrong\n    \n    Failing input written to testdata/fuzz/FuzzX/1\nFAIL\n"
	if !onlyTimeUp.MatchString(timeUp) {
		t.Error("the engine's own deadline counts as a finding")
	}
	if onlyTimeUp.MatchString(finding) {
		t.Error("a finding counts as the engine's own deadline")
	}
}
