// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/pb33f/libopenapi"
)

const documentFile = "../../docs/openapi.json"

// confirmed is the query that a route wants at least.
func confirmed(id string) string {
	if id == "wipe-board" {
		return "?confirm=b1"
	}
	return ""
}

// bodyOf is a body that a route takes.
func bodyOf(id string) string {
	return map[string]string{
		"set-meta": `{"site":"hall-5","version":0}`, "create-rollout": `{"component":"agent","release":"1.9.0"}`,
		"forecast": `{"component":"agent","release":"1.9.0"}`, "add-user": `{"name":"bob","role":"viewer"}`, "set-role": `{"role":"operator"}`,
		"give-command": `{"name":"snapshot","args":{"camera":"gate"},"boards":["b1"]}`, "act-on-command": `{"action":"cancel"}`,
		"disable-user": `{"disabled":true}`, "make-join-token": `{"boards":3,"seconds":60}`,
		"make-token": `{"name":"ci","rights":["boards:read"]}`, "put-alert-rule": `{"summary":"hot","severity":"warning","q":"b1"}`,
		"add-webhook": `{"name":"pager","url":"https://x.example/","kind":"webhook"}`, "put-webhook": `{"name":"pager","url":"https://x.example/","kind":"webhook"}`,
		"patch-twin": `{"set":{"app.rate":7,"app.old":null},"reason":"so"}`, "patch-twins": `{"boards":["b1"],"set":{"app.rate":7}}`,
		"begin-release": `{"envelope":"c2lnbmVk"}`, "put-object": "bytes",
		"decide-conflict": `{"board":"b1","key":"app.hold","choose":"value","value":3}`,
	}[id]
}

// TestDocument: the description is what is checked in, OpenAPI 3.1 as libopenapi reads
// it, and has every route. FULMAR_UPDATE=1 writes it anew.
func TestDocument(t *testing.T) {
	t.Parallel()
	h := open(t, newTown())
	doc, err := h.Document(false)
	if err != nil {
		t.Fatal(err)
	}
	var nice bytes.Buffer
	if err := json.Indent(&nice, doc, "", " "); err != nil {
		t.Fatal(err)
	}
	nice.WriteByte('\n')
	if os.Getenv("FULMAR_UPDATE") != "" {
		if err := os.WriteFile(documentFile, nice.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if was, err := os.ReadFile(documentFile); err != nil || !bytes.Equal(was, nice.Bytes()) {
		t.Errorf("%s is not what the handlers describe (%v); FULMAR_UPDATE=1 go test writes it", documentFile, err)
	}
	if w := get(h, "openapi.json", ""); w.Code != 200 || !bytes.Equal(w.Body.Bytes(), doc) {
		t.Errorf("served: %d, %d bytes of %d", w.Code, w.Body.Len(), len(doc))
	}
	parsed, err := libopenapi.NewDocument(doc)
	if err != nil {
		t.Fatal(err)
	}
	model, err := parsed.BuildV3Model()
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range h.Routes() {
		path := model.Model.Paths.PathItems.GetOrZero("/api/v1/" + r.Path)
		if path == nil || path.GetOperations().GetOrZero(strings.ToLower(r.Method)) == nil {
			t.Errorf("%s %s is not described", r.Method, r.Path)
		}
	}
	for _, leak := range []string{"ErrorModel", "$schema"} {
		if bytes.Contains(doc, []byte(leak)) {
			t.Errorf("the description has %s", leak)
		}
	}
}
