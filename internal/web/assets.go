package web

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"net/http"
	"time"
)

var (
	//go:embed assets/pawl.css
	styleSheet []byte
	//go:embed assets/pawl.js
	script []byte
	//go:embed assets/pawl.svg
	icon []byte
	//go:embed assets/vendor/htmx.org-2.0.11/htmx.min.js
	htmx []byte
	//go:embed assets/vendor/idiomorph-0.8.0/idiomorph-ext.min.js
	idiomorph []byte
)

// assets are the embedded files with the hash of each, which is part of its
// address: a browser keeps them for good and still has the new ones after an update.
type assets map[string]asset

type asset struct {
	data []byte
	hash string
}

func newAssets() assets {
	all := assets{}
	for name, data := range map[string][]byte{
		"pawl.css": styleSheet, "pawl.js": script, "pawl.svg": icon, "htmx.js": htmx, "idiomorph.js": idiomorph,
	} {
		sum := sha256.Sum256(data)
		all[name] = asset{data, hex.EncodeToString(sum[:6])}
	}
	return all
}

func (a assets) url(name string) string { return "/assets/" + name + "?v=" + a[name].hash }

func (a assets) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	file, ok := a[name]
	if !ok {
		http.NotFound(w, r)
		return
	}
	h := w.Header()
	h.Set("ETag", `"`+file.hash+`"`)
	h.Set("Cache-Control", "no-cache")
	if r.URL.Query().Get("v") == file.hash {
		h.Set("Cache-Control", "public, max-age=31536000, immutable")
	}
	http.ServeContent(w, r, name, time.Time{}, bytes.NewReader(file.data))
}
