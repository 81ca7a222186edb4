package loop

import (
	"golang.org/x/sys/unix"

	"raid-assembler/pkg/engine/stripe"
	"raid-assembler/pkg/engine/ublk"
	"raid-assembler/pkg/raid"
)

// arrived takes a request from the queue.
func (l *Loop) arrived(req ublk.Request) error {
	if l.frozen {
		l.quiet = l.now

		return nil
	}

	r := stripe.Request{Tag: int(req.Tag), Sector: raid.Sectors(req.Start), Data: req.Buf, FUA: req.FUA}

	switch req.Op {
	case ublk.Read:
		r.Op = stripe.Read
	case ublk.Write:
		r.Op = stripe.Write
	case ublk.Flush:
		r.Op, r.Sector, r.Data = stripe.Flush, 0, nil
	case ublk.Discard:
		r.Op, r.Sectors, r.Data = stripe.Discard, raid.Sectors(req.Sectors), nil
	case ublk.WriteZeroes:
		r.Op, r.Sectors, r.Data = stripe.WriteZeroes, raid.Sectors(req.Sectors), nil
	default:
		return l.queue.Commit(req.Tag, unix.EOPNOTSUPP)
	}

	l.core.Submit(r)

	return nil
}
