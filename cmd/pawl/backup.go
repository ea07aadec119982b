package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/user"
	"time"

	"github.com/pawl-mail/pawl/internal/control"
	"github.com/pawl-mail/pawl/internal/node"
)

type backupCmd struct {
	output
	To string `arg:"" help:"A file whose name ends in .tar, or a folder; neither may exist yet."`
}

func (b *backupCmd) Help() string {
	return "Example: pawl backup /var/backups/pawl-2026-11-25.tar\n\nThe running server writes it: the database as it is at one moment, and the body of every message that waits. Mail goes on meanwhile. The configuration file is not in it."
}

func (b *backupCmd) Run(ctx context.Context, top *cli) error {
	cfg, err := top.settings()
	if err != nil {
		return err
	}
	stream, err := control.NewClient(cfg.ControlSocket()).Stream(ctx, "backup", struct{}{})
	if err != nil {
		return err
	}
	m, err := node.SaveBackup(stream, b.To)
	if err := errors.Join(err, stream.Close()); err != nil {
		return err
	}
	if b.JSON {
		return b.json(m)
	}
	say("%s holds the data of %s as of %s; files in it: %d", bold.Render(b.To), m.Hostname, stamp(m.Created), m.Files)
	return nil
}

type restoreCmd struct {
	output
	From    string `arg:"" help:"What pawl backup wrote."`
	To      string `arg:"" help:"The data folder to make; missing or empty."`
	Release bool   `help:"Let the queue deliver at once. What was delivered after the backup was made is delivered again."`
}

func (r *restoreCmd) Help() string {
	return "Example: pawl restore /var/backups/pawl-2026-11-25.tar /var/lib/pawl\n\nAll mail that waited is held: some of it may have been delivered since the backup was made, and would be delivered twice. `pawl queue release --all` lets it go, or --release at once."
}

func (r *restoreCmd) Run(ctx context.Context) error {
	who := "the operator"
	if u, err := user.Current(); err == nil {
		who = u.Username
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	done, err := node.Restore(ctx, node.RestoreOptions{From: r.From, Data: r.To, Release: r.Release, Who: who, Now: time.Now, Log: log})
	if err != nil {
		return err
	}
	if r.JSON {
		return r.json(done)
	}
	say("%s holds the data of %s as of %s; %d deliveries wait", bold.Render(r.To), done.Manifest.Hostname, stamp(done.Manifest.Created), done.Waiting)
	if done.Held > 0 {
		say("%s", warn.Render("they are held: look at `pawl queue list`, then `pawl queue release --all`, or --domain DOMAIN"))
	}
	return nil
}
