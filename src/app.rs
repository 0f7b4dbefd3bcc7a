//! Builds every part, joins the queues, owns start and stop order.
