package config

import (
	"reflect"
	"strings"
)

// Diff returns the keys, as in "relay.listen", whose values differ, in the
// file's order.
func Diff(a, b Config) []string {
	var keys []string
	walk("", reflect.ValueOf(a), reflect.ValueOf(b), func(key string, a, b reflect.Value) {
		if !reflect.DeepEqual(a.Interface(), b.Interface()) {
			keys = append(keys, key)
		}
	})
	return keys
}

// With returns the configuration with the values of some keys taken from
// another.
func (c Config) With(other Config, taken func(key string) bool) Config {
	walk("", reflect.ValueOf(&c).Elem(), reflect.ValueOf(other), func(key string, mine, theirs reflect.Value) {
		if taken(key) {
			mine.Set(theirs)
		}
	})
	return c
}

// Keys returns every key that there is, in the file's order.
func Keys() []string {
	var keys []string
	v := reflect.ValueOf(Config{})
	walk("", v, v, func(key string, _, _ reflect.Value) { keys = append(keys, key) })
	return keys
}

// walk calls visit with each key and its values. A struct without names for the
// file is a value.
func walk(prefix string, a, b reflect.Value, visit func(key string, a, b reflect.Value)) {
	for i := range a.NumField() {
		name, _, _ := strings.Cut(a.Type().Field(i).Tag.Get("yaml"), ",")
		key := prefix + name
		if section(a.Field(i).Type()) {
			walk(key+".", a.Field(i), b.Field(i), visit)
			continue
		}
		visit(key, a.Field(i), b.Field(i))
	}
}

// section reports whether a type is a section of the file.
func section(t reflect.Type) bool {
	return t.Kind() == reflect.Struct && t.NumField() > 0 && t.Field(0).Tag.Get("yaml") != ""
}
