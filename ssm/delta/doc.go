// Package delta computes gated linear recurrences whose state is a matrix: linear
// attention, RetNet, Lightning, gated linear attention, DeltaNet, Gated DeltaNet, KDA,
// GDN-2, Comba, DPLR and the core of RWKV-7, and the blocks that published models build
// around them. A sequence of any length costs the same for each token, and can be stopped
// and gone on with anywhere.
//
//   - [Recurrence] is the recurrence, one operator for the whole family.
package delta
