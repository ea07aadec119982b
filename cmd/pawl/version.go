package main

import (
	"runtime/debug"

	"github.com/pawl-mail/pawl/internal/node"
)

type versionCmd struct {
	output
}

func (v *versionCmd) Run() error {
	version := struct {
		Version string `json:"version"`
		Commit  string `json:"commit,omitempty"`
		Go      string `json:"go,omitempty"`
	}{Version: node.Version}
	if info, ok := debug.ReadBuildInfo(); ok {
		version.Go = info.GoVersion
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				version.Commit = s.Value
			}
		}
	}
	if v.JSON {
		return v.json(version)
	}
	say("pawl %s %s %s", version.Version, version.Go, version.Commit)
	return nil
}
