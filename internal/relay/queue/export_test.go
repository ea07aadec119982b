package queue

// Statements are those that must not read what has ended, or what is not asked
// for, with as many arguments as they take.
func Statements() map[string]string {
	list := func(f Filter) string {
		q, _, _ := f.query()
		return `SELECT ` + deliveryColumns + deliveryTables + ` WHERE d.org = $1 AND d.id IN (` + q + `) ORDER BY d.id`
	}
	return map[string]string{
		"list":                       list(Filter{}),
		"list of a domain":           list(Filter{Domain: "example.com"}),
		"list of failed of a domain": list(Filter{States: []State{SomeFailed}, Domain: "example.com"}),
		"list of held of a domain":   list(Filter{States: []State{Held}, Domain: "example.com"}),
		"list by policy of a domain": list(Filter{ByPolicy: true, Domain: "example.com"}),
		"list of failed":             list(Filter{States: []State{SomeFailed}}),
		"list of dropped":            list(Filter{States: []State{Dropped}}),
		"list by policy":             list(Filter{ByPolicy: true}),
		"list of one":                list(Filter{ID: "id"}),
		"list of a sender":           list(Filter{Sender: "ann@example.org"}),
		"list of a sender's domain":  list(Filter{Sender: "@example.org"}),
		"list of a reason":           list(Filter{Why: "refused"}),
		"counts":                     countAll,
		"oldest":                     oldest,
		"destinations":               queuedDomains,
		"due":                        dueIDs,
		"expired":                    expiredIDs,
		"first due":                  firstDue,
		"not reminded":               unremindedIDs,
		"mark":                       updateDelivery,
		"change":                     changeDelivery,
		"kick":                       kickDeliveries,
		"ended":                      findEnded,
		"purge of a message":         purgeMessage,
		"free a body":                `DELETE FROM body WHERE org = $1 AND message = $2` + over,
		"free a file":                `UPDATE message SET spooled = 0 WHERE org = $1 AND id = $2 AND spooled = 1` + over,
		"incoming":                   findIncoming,
		"deliveries of a message":    `SELECT ` + deliveryColumns + deliveryTables + ` WHERE ` + ofMessage + ` ORDER BY d.id`,
	}
}

// Turn is how many deliveries a worker makes before it makes way.
const Turn = turnLength
