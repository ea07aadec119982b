package queue

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"

	"github.com/pawl-mail/pawl/internal/db"
)

// partSize is how much of a large body is written and read at once where bodies
// lie in the database: other mail waits while a part is written.
const partSize = 1 << 20

// storeParts writes a large body to the database ahead of its message's
// deliveries. Until those are committed the message is incoming: it is not
// accepted, and the sweep of any node may remove it after a while.
func (q *Queue) storeParts(ctx context.Context, r *newRows, body *Body) error {
	from, err := body.rewind()
	if err != nil {
		return err
	}
	r.incoming = true
	if err := q.opts.DB.Write(ctx, r.insertMessage); err != nil {
		return err
	}
	for part := 0; ; part++ {
		data := make([]byte, partSize)
		n, err := io.ReadFull(from, data)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
			return fmt.Errorf("reading a spool file: %w", err)
		}
		err = q.opts.DB.Write(ctx, func(ctx context.Context, tx db.Tx) error {
			return insertPart(ctx, tx, r.message, part, data[:n])
		})
		if err != nil {
			return err
		}
	}
}

// dropParts removes a large body that was not accepted.
func (q *Queue) dropParts(ctx context.Context, m Message) {
	err := q.opts.DB.Write(context.WithoutCancel(ctx), func(ctx context.Context, tx db.Tx) error {
		return dropIncoming(ctx, tx, m.Org, m.ID)
	})
	if err != nil {
		q.opts.Log.Warn("parts of a message that was not accepted could not be removed; they are removed in an hour", "message", m.ID, "err", err)
	}
}

func dropIncoming(ctx context.Context, tx db.Tx, org, id string) error {
	done, err := tx.ExecContext(ctx, `DELETE FROM message WHERE org = $1 AND id = $2 AND incoming = 1`, org, id)
	if err != nil {
		return err
	}
	// If it was accepted after all, its parts are needed.
	if n, err := done.RowsAffected(); err != nil || n == 0 {
		return err
	}
	_, err = tx.ExecContext(ctx, `DELETE FROM body WHERE org = $1 AND message = $2`, org, id)
	return err
}

func insertPart(ctx context.Context, tx db.Tx, m Message, part int, data []byte) error {
	if data == nil {
		data = []byte{} // nil is NULL
	}
	_, err := tx.ExecContext(ctx, `INSERT INTO body (org, message, part, data) VALUES ($1, $2, $3, $4)`, m.Org, m.ID, part, data)
	return err
}

// over is the condition that a message ($1, $2) has nothing left to deliver; its
// deliveries lie between $3 and $4.
const over = ` AND NOT EXISTS (SELECT 1 FROM delivery WHERE org = $1 AND message = $2 AND id >= $3 AND id <= $4 AND ended = 0)`

// freeStored removes the body of a message that has nothing left to deliver.
func freeStored(ctx context.Context, tx db.Tx, org, message string) error {
	first, last := deliveryIDs(message)
	_, err := tx.ExecContext(ctx, `DELETE FROM body WHERE org = $1 AND message = $2`+over, org, message, first, last)
	return err
}

// freeSpooled is freeStored for a body in the spool. It reports whether the
// file may go once this is committed.
func freeSpooled(ctx context.Context, tx db.Tx, org, message string) (bool, error) {
	first, last := deliveryIDs(message)
	done, err := tx.ExecContext(ctx, `UPDATE message SET spooled = 0 WHERE org = $1 AND id = $2 AND spooled = 1`+over, org, message, first, last)
	if err != nil {
		return false, err
	}
	n, err := done.RowsAffected()
	return n > 0, err
}

// openStored opens a body that lies in the database.
func (q *Queue) openStored(ctx context.Context, m Message) (io.ReadCloser, error) {
	p := &parts{ctx: ctx, from: q.opts.DB.Read(), message: m, missing: m.Size}
	if err := p.next(); err != nil {
		return nil, err
	}
	return p, nil
}

// parts reads a body part by part.
type parts struct {
	ctx     context.Context //nolint:containedctx // io.Reader has none, and the reader lives as long as the attempt
	from    db.Reader
	message Message
	part    int
	left    bytes.Reader // of the part
	missing int64        // of the body
}

// next reads the next part. A body whose end is missing, because it was freed
// meanwhile, must not pass for a whole one.
func (p *parts) next() error {
	var data []byte
	err := p.from.QueryRowContext(p.ctx, `SELECT data FROM body WHERE org = $1 AND message = $2 AND part = $3`,
		p.message.Org, p.message.ID, p.part).Scan(&data)
	if errors.Is(err, sql.ErrNoRows) {
		err = ErrNoBody
	}
	if err != nil {
		return fmt.Errorf("reading the body of message %s: %w", p.message.ID, err)
	}
	p.part++
	p.missing -= int64(len(data))
	p.left.Reset(data)
	return nil
}

// Read takes the next bytes.
func (p *parts) Read(b []byte) (int, error) {
	for p.left.Len() == 0 {
		if p.missing <= 0 {
			return 0, io.EOF
		}
		if err := p.next(); err != nil {
			return 0, err
		}
	}
	return p.left.Read(b)
}

// Close ends the reading.
func (p *parts) Close() error { return nil }
