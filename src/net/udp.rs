//! RTP sockets on one epoll.
