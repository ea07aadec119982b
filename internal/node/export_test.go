package node

// LiveKeys are the keys of the configuration that a reload changes.
func (n *Node) LiveKeys() (keys []string) {
	for _, p := range n.parts() {
		keys = append(keys, p.keys...)
	}
	return keys
}
