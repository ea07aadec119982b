package queue

import (
	"fmt"
	"strconv"

	"github.com/google/uuid"
)

// A delivery's id is its message's but for the last four hexadecimal digits,
// which count on from the message's own. So the deliveries of a message lie
// together in the order of ids, and no index is needed to find them.
const (
	idTail = 4
	// maxDeliveries is how many ids there are beside the message's own.
	maxDeliveries = 1<<(4*idTail) - 1
)

// isID reports whether s is a UUID as db.NewID writes it.
func isID(s string) bool {
	id, err := uuid.Parse(s)
	return err == nil && id.String() == s
}

// deliveryID is the id of a message's nth delivery, n from 0 on.
func deliveryID(message string, n int) string {
	head := message[:len(message)-idTail]
	own, _ := strconv.ParseUint(message[len(head):], 16, 16) // isID has seen to it
	return fmt.Sprintf("%s%04x", head, uint16(own)+1+uint16(n))
}

// deliveryIDs are the bounds of the ids of a message's deliveries.
func deliveryIDs(message string) (first, last string) {
	head := message[:len(message)-idTail]
	return head + "0000", head + "ffff"
}
