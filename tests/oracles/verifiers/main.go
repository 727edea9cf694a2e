// A service that asks the guard beside it about each request, with nothing but the standard library.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"strings"
)

func main() {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", os.Args[1])
	}
	guard := &http.Client{Transport: &http.Transport{DialContext: dial}}
	serve := func(w http.ResponseWriter, r *http.Request) {
		token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
		question, _ := json.Marshal(map[string]any{"credential": token, "audience": "https://search.example", "scopes": []string{"search:read"}})
		answer, err := guard.Post("http://guard/verify", "application/json", bytes.NewReader(question))
		if err != nil {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		defer answer.Body.Close()
		var said struct{ Decision bool }
		if json.NewDecoder(answer.Body).Decode(&said) != nil || !said.Decision {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		w.WriteHeader(http.StatusOK)
	}
	if err := http.ListenAndServe(os.Args[2], http.HandlerFunc(serve)); err != nil {
		panic(err)
	}
}
