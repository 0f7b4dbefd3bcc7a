//! Ladder diagrams of what went over a simulated network.
