//! Call control: every decision about calls, as a pure machine.
