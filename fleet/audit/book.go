// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"context"
	"database/sql"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"fulmar/schema/rest"
	"fulmar/trust"
	"fulmar/trust/chain"
)

const (
	// look is how often the book looks whether there is something to sign.
	look = time.Minute
	// signAfter and signRows say when a head is kept: ten minutes after the last one if
	// anything was written since, or after a thousand rows.
	signAfter = 10 * time.Minute
	signRows  = 1000
	// checkEvery is how often the whole chain is gone through: 0.3 s of one core for
	// 100,000 rows.
	checkEvery = time.Hour
	// maxPage bounds the rows of one answer.
	maxPage = 1000
)

// Book is the log with the key that signs its heads.
type Book struct {
	*Log
	key *trust.Signer
	now func() time.Time

	mu      sync.Mutex
	newest  *chain.Signed // of the tip when it was last asked for
	broken  string
	checked time.Time
}

// NewBook gives the book of a log whose migrations hold [Schema] and [Heads].
func NewBook(l *Log, key *trust.Signer) *Book { return &Book{Log: l, key: key, now: time.Now} }

// Run signs heads and goes through the chain until the context ends.
func (b *Book) Run(ctx context.Context, log *slog.Logger) error {
	t := time.NewTicker(look)
	defer t.Stop()
	for last := (time.Time{}); ; {
		var err error
		if b.now().Sub(last) >= checkEvery {
			err, last = b.check(ctx), b.now()
		}
		if err == nil {
			err = b.sign(ctx)
		}
		if err != nil && ctx.Err() == nil {
			log.Error("the audit log is not signed; see fulmar-fleet audit --verify", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
	}
}

// check goes through the whole chain and remembers what it found.
func (b *Book) check(ctx context.Context) error {
	_, _, err := b.Verify(ctx, Head{})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.broken, b.checked = "", b.now()
	if err != nil {
		b.broken = err.Error()
	}
	return err
}

// sign keeps a head where it is time for one.
func (b *Book) sign(ctx context.Context) error {
	last, err := lastHead(ctx, b.db.Read)
	if err != nil {
		return err
	}
	_, tip, err := ends(ctx, b.db.Read)
	if err != nil {
		return err
	}
	if last != nil && last.KeyID == b.key.ID && (tip.Seq == last.Seq ||
		tip.Seq-last.Seq < signRows && b.now().Sub(last.At) < signAfter && !b.now().Before(last.At)) {
		return nil
	}
	return b.signNow(ctx)
}

// Begin is for the server's start. A key that signs for the first time is named in the
// log, which it then signs.
func (b *Book) Begin(ctx context.Context) error {
	last, err := lastHead(ctx, b.db.Read)
	if err != nil || last != nil && last.KeyID == b.key.ID {
		return err
	}
	err = b.within(ctx, func(tx *sql.Tx) error {
		return Append(ctx, tx, Entry{Who: "server", What: "audit-key", Why: "heads of this log are signed by key " + b.key.ID + " from here on"})
	})
	if err != nil {
		return err
	}
	return b.signNow(ctx)
}

func (b *Book) signNow(ctx context.Context) error {
	s, err := b.head(ctx)
	if err != nil {
		return err
	}
	return b.within(ctx, func(tx *sql.Tx) error { return keepHead(ctx, tx, s) })
}

func (b *Book) within(ctx context.Context, fn func(tx *sql.Tx) error) error {
	tx, err := b.db.Write.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("write audit log: %w", err)
	}
	defer tx.Rollback() //nolint:errcheck // after a commit it is a no-op
	if err := fn(tx); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("write audit log: %w", err)
	}
	return nil
}

// head signs the newest row, after it has gone through all that was written since the
// last head that is kept. Nothing is signed that does not follow from it.
func (b *Book) head(ctx context.Context) (*chain.Signed, error) {
	tx, err := b.db.Read.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return nil, fmt.Errorf("read audit log: %w", err)
	}
	defer tx.Rollback() //nolint:errcheck // only read
	tip, err := b.since(ctx, tx)
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.newest == nil || !b.newest.Equal(tip) {
		if b.newest, err = chain.Sign(b.key, tip, b.now()); err != nil {
			return nil, err
		}
	}
	return b.newest, nil
}

// since goes through the rows after the last head and gives the newest.
func (b *Book) since(ctx context.Context, tx *sql.Tx) (Head, error) {
	last, err := lastHead(ctx, tx)
	if err != nil {
		return Head{}, err
	}
	base, _, err := ends(ctx, tx)
	if err != nil {
		return Head{}, err
	}
	tip := Head{Seq: base.Seq, Hash: base.Hash}
	if last != nil && last.Seq > base.Seq {
		var hash []byte
		if err := tx.QueryRowContext(ctx, `SELECT hash FROM audit WHERE seq = ?`, last.Seq).Scan(&hash); err != nil || !last.Equal(Head{Seq: last.Seq, Hash: hash}) {
			return tip, fmt.Errorf("%w: row %d is not the one that was signed on %s", ErrBroken, last.Seq, last.At.Format("2006-01-02 15:04"))
		}
		tip = last.Head
	}
	return tip, each(ctx, tx, tip.Seq, func(e Entry) (err error) {
		tip, err = tip.Next(&e)
		return err
	})
}

// Head gives the newest row, signed now if there is no signature of it yet, and what was
// last found of the chain. ErrBroken where the rows since the last head do not follow.
func (b *Book) Head(ctx context.Context) (rest.AuditHead, error) {
	var h rest.AuditHead
	s, err := b.head(ctx)
	if err != nil {
		return h, err
	}
	h = rest.AuditHead{Seq: s.Seq, Hash: hex.EncodeToString(s.Hash), At: s.At, Signature: string(s.Envelope), Key: string(s.Key), KeyID: s.KeyID}
	var since sql.NullInt64
	if err := b.db.Read.QueryRowContext(ctx, `SELECT count(*), min(at) FROM audit`).Scan(&h.Rows, &since); err != nil {
		return h, fmt.Errorf("count audit log: %w", err)
	}
	if since.Valid {
		h.Since = time.UnixMilli(since.Int64).UTC()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	h.Broken, h.Checked = b.broken, b.checked
	return h, nil
}

// PublicKey gives the public half of the key that signs, PEM.
func (b *Book) PublicKey() ([]byte, error) { return trust.PublicPEM(b.key.Public()) }

// Export writes the whole log with its signed heads, the newest signed now, as a file
// that package trust/chain verifies.
func (b *Book) Export(ctx context.Context, w io.Writer) (Head, error) {
	tx, err := b.db.Read.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return Head{}, fmt.Errorf("read audit log: %w", err)
	}
	defer tx.Rollback() //nolint:errcheck // only read
	base, _, err := ends(ctx, tx)
	if err != nil {
		return Head{}, err
	}
	signed, err := heads(ctx, tx)
	if err != nil {
		return Head{}, err
	}
	tip := Head{Seq: base.Seq, Hash: base.Hash}
	out, err := chain.NewWriter(w, tip)
	if err != nil {
		return tip, fmt.Errorf("export audit log: %w", err)
	}
	err = each(ctx, tx, base.Seq, func(e Entry) (err error) {
		if tip, err = tip.Next(&e); err != nil {
			return err
		}
		e.At = e.At.UTC()
		if err := out.Row(&e); err != nil {
			return err
		}
		if s := signed[tip.Seq]; s != nil {
			return out.Head(s)
		}
		return nil
	})
	if err != nil {
		return tip, fmt.Errorf("export audit log: %w", err)
	}
	s, err := chain.Sign(b.key, tip, b.now())
	if err != nil {
		return tip, err
	}
	return tip, out.Head(s)
}

// Entries gives rows of a tenant after one of this number (before it, newest first,
// where the filter wants that; 0 is from the end), at most limit of them and a thousand.
func (l *Log) Entries(ctx context.Context, tenant string, after int64, limit int, f rest.AuditFilter) ([]rest.AuditEntry, error) {
	q, args := `SELECT seq, at, who, tenant, board, what, why, hash FROM audit WHERE tenant = ?`, []any{tenant}
	add := func(clause string, arg any) { q, args = q+" AND "+clause, append(args, arg) }
	for column, word := range map[string]string{"who": f.Who, "what": f.What, "board": f.Board} {
		if word != "" {
			add(column+" = ?", word)
		}
	}
	if !f.From.IsZero() {
		add("at >= ?", f.From.UnixMilli())
	}
	if !f.To.IsZero() {
		add("at < ?", f.To.UnixMilli())
	}
	order := " ORDER BY seq"
	switch {
	case !f.Newest:
		add("seq > ?", after)
	case after > 0:
		add("seq < ?", after)
		fallthrough
	default:
		order += " DESC"
	}
	rows, err := l.db.Read.QueryContext(ctx, q+order+" LIMIT ?", append(args, min(max(limit, 1), maxPage))...)
	if err != nil {
		return nil, fmt.Errorf("read audit log: %w", err)
	}
	defer rows.Close() //nolint:errcheck // Err tells
	out := []rest.AuditEntry{}
	for rows.Next() {
		var e rest.AuditEntry
		var at int64
		var hash []byte
		if err := rows.Scan(&e.Seq, &at, &e.Who, &e.Tenant, &e.Board, &e.What, &e.Why, &hash); err != nil {
			return nil, fmt.Errorf("read audit log: %w", err)
		}
		e.At, e.Hash = time.UnixMilli(at).UTC(), hex.EncodeToString(hash)
		out = append(out, e)
	}
	return out, rows.Err()
}
