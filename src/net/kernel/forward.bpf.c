// Forwards the packets of steady RTP streams between two legs without a socket, and copies each for the media thread.
//
// Attached to the ingress of an interface (tcx). A packet of a stream that the media thread has entered in `streams` goes
// on with the header that the thread would give it. Whatever is not plainly the next packet of that stream passes on to the
// leg's socket, where the thread decides as without this program: another source, payload type or SSRC, an RTP header with
// sources, an extension or padding, a jump of numbers or times, IP options, fragments, and everything while the ring for the
// copies is full.
//
// Built with: clang -O2 -g -target bpf -mcpu=v3 -c forward.bpf.c -o forward.bpf.o && llvm-strip -g forward.bpf.o
// (tests/kernel_forwarding.rs builds it again and compares.)

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/ip.h>
#include <linux/pkt_cls.h>
#include <linux/udp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define IP_AT ETH_HLEN
#define UDP_AT (IP_AT + 20)
#define RTP_AT (UDP_AT + 8)
#define RTP_HEADER 12
#define TTL 64

// A packet that is newer by more is for the thread to judge: far below the 3000 that are a restart (RFC 3550 A.1), and so few
// that what is reordered around it is no restart either for a thread that has not read the copy yet.
#define MAX_DROPOUT 50
// A packet behind the newest by as much or more is a restart (RFC 3550 A.1).
#define MAX_MISORDER 100
// Bytes of RTP that a small and a large copy have room for: powers of two, as the verifier wants their lengths masked.
#define SMALL 256
#define LARGE 2048

// As src/net/kernel.rs writes it. Addresses, ports and SSRCs in network order, the rest in the machine's.
struct key {
	__u32 from_address;
	__u32 to_address;
	__u16 from_port;
	__u16 to_port;
};

struct stream {
	__u32 from_address;
	__u32 to_address;
	__u16 from_port;
	__u16 to_port;
	__u32 interface; // 0: the peer is on this machine
	__u32 ssrc_in;
	__u32 ssrc_out;
	__u32 timestamp_offset;
	__u32 longest_leap; // ticks between a packet and the one before
	__u32 newest_timestamp;
	__u16 newest_sequence;
	__u16 sequence_offset;
	__u8 payload_type_in;
	__u8 payload_type_out;
	__u16 copied; // bytes of each packet that are copied at most
	__u32 slot;
	__u64 leg;
	__u64 forwarded;
};

struct copy_head {
	__u64 arrival_ns; // CLOCK_MONOTONIC
	__u64 leg;
	__u32 slot;
	__u16 len; // of the whole RTP packet
	__u16 copied;
};

struct small_copy {
	struct copy_head head;
	__u8 rtp[SMALL];
};

struct large_copy {
	struct copy_head head;
	__u8 rtp[LARGE];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, struct key);
	__type(value, struct stream);
} streams SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 8 << 20);
} copies SEC(".maps");

// True when the packet goes on under the stream's offsets; notes it as the newest where it is.
static __always_inline int is_next(struct stream *stream, __u16 sequence, __u32 timestamp)
{
	__s16 ahead = sequence - stream->newest_sequence;

	if (ahead <= 0)
		return ahead > -MAX_MISORDER && stream->forwarded > MAX_MISORDER;
	if (ahead > MAX_DROPOUT || timestamp - stream->newest_timestamp > stream->longest_leap)
		return 0;
	stream->newest_sequence = sequence;
	stream->newest_timestamp = timestamp;
	return 1;
}

// Hands the media thread a copy of the first `copied` bytes of RTP, 1 to `room`; without one the packet takes the other way.
#define COPY(type, room)                                                                                     \
	do {                                                                                                 \
		struct type *copy = bpf_ringbuf_reserve(&copies, sizeof(*copy), 0);                          \
		__u32 n = copied - 1;                                                                        \
		if (!copy)                                                                                   \
			return TC_ACT_UNSPEC;                                                                \
		copy->head.arrival_ns = bpf_ktime_get_ns();                                                  \
		copy->head.leg = stream->leg;                                                                \
		copy->head.slot = stream->slot;                                                              \
		copy->head.len = len;                                                                        \
		copy->head.copied = copied;                                                                  \
		asm volatile("%0 &= %1" : "+r"(n) : "i"((room)-1));                                          \
		if (bpf_skb_load_bytes(skb, RTP_AT, copy->rtp, n + 1)) {                                     \
			bpf_ringbuf_discard(copy, BPF_RB_NO_WAKEUP);                                         \
			return TC_ACT_UNSPEC;                                                                \
		}                                                                                            \
		bpf_ringbuf_submit(copy, BPF_RB_NO_WAKEUP);                                                  \
	} while (0)

SEC("classifier")
int forward(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data;
	void *end = (void *)(long)skb->data_end;
	struct ethhdr *ethernet;
	struct iphdr *ip;
	struct udphdr *udp;
	__u32 *rtp;

	// Of a VLAN only what comes by its own interface; of packets that the card has joined none.
	if (skb->protocol != bpf_htons(ETH_P_IP) || skb->vlan_present || skb->gso_size)
		return TC_ACT_UNSPEC;
	// What an interface overhears of other hardware is not ours to send on, as the system would not take it.
	if (skb->pkt_type != PACKET_HOST)
		return TC_ACT_UNSPEC;
	if (data + RTP_AT + RTP_HEADER > end) {
		if (bpf_skb_pull_data(skb, RTP_AT + RTP_HEADER))
			return TC_ACT_UNSPEC;
		data = (void *)(long)skb->data;
		end = (void *)(long)skb->data_end;
		if (data + RTP_AT + RTP_HEADER > end)
			return TC_ACT_UNSPEC;
	}
	ethernet = data;
	ip = data + IP_AT;
	udp = data + UDP_AT;
	rtp = data + RTP_AT;
	if (ethernet->h_proto != bpf_htons(ETH_P_IP) || ip->version != 4 || ip->ihl != 5 || ip->protocol != 17 ||
	    (ip->frag_off & bpf_htons(0x3fff)))
		return TC_ACT_UNSPEC;

	struct key key = {
		.from_address = ip->saddr,
		.to_address = ip->daddr,
		.from_port = udp->source,
		.to_port = udp->dest,
	};
	struct stream *stream = bpf_map_lookup_elem(&streams, &key);
	if (!stream)
		return TC_ACT_UNSPEC;

	__u32 len = bpf_ntohs(udp->len) - 8;
	__u32 first = bpf_ntohl(rtp[0]);
	__u32 timestamp = bpf_ntohl(rtp[1]);
	__u16 sequence = first;
	if (bpf_ntohs(ip->tot_len) != len + 28 || skb->len < RTP_AT + len || len <= RTP_HEADER || len > LARGE)
		return TC_ACT_UNSPEC;
	// Version 2, no padding, extension or contributing sources.
	if (first >> 24 != 0x80 || (first >> 16 & 0x7f) != stream->payload_type_in || rtp[2] != stream->ssrc_in)
		return TC_ACT_UNSPEC;
	if (!is_next(stream, sequence, timestamp))
		return TC_ACT_UNSPEC;

	__u32 before[3] = { rtp[0], rtp[1], rtp[2] };
	__u32 after[3] = {
		bpf_htonl((first & 0xff800000) | (__u32)stream->payload_type_out << 16 |
			  (__u16)(sequence + stream->sequence_offset)),
		bpf_htonl(timestamp + stream->timestamp_offset),
		stream->ssrc_out,
	};
	__u32 from = ip->saddr, to = ip->daddr;
	__u32 ports = *(__u32 *)udp, new_ports = stream->from_port | (__u32)stream->to_port << 16;
	__u32 new_from = stream->from_address, new_to = stream->to_address;
	// Version, header length and service: no class, as our sockets send.
	__u32 service = *(__u16 *)ip, new_service = bpf_htons(0x4500);
	__u32 lifetime = *(__u32 *)&ip->ttl & 0xffff;
	__u32 new_lifetime = (lifetime & bpf_htons(0x00ff)) | bpf_htons(TTL << 8);
	__u16 has_checksum = udp->check;
	__u32 copied = len < stream->copied ? len : stream->copied;

	if (copied <= SMALL)
		COPY(small_copy, SMALL);
	else
		COPY(large_copy, LARGE);

	if (has_checksum) {
		__s64 difference = bpf_csum_diff(before, sizeof(before), after, sizeof(after), 0);

		bpf_l4_csum_replace(skb, UDP_AT + 6, 0, difference, BPF_F_MARK_MANGLED_0);
		bpf_l4_csum_replace(skb, UDP_AT + 6, ports, new_ports, BPF_F_MARK_MANGLED_0 | 4);
		bpf_l4_csum_replace(skb, UDP_AT + 6, from, new_from, BPF_F_PSEUDO_HDR | BPF_F_MARK_MANGLED_0 | 4);
		bpf_l4_csum_replace(skb, UDP_AT + 6, to, new_to, BPF_F_PSEUDO_HDR | BPF_F_MARK_MANGLED_0 | 4);
	}
	bpf_l3_csum_replace(skb, IP_AT + 10, from, new_from, 4);
	bpf_l3_csum_replace(skb, IP_AT + 10, to, new_to, 4);
	bpf_l3_csum_replace(skb, IP_AT + 10, lifetime, new_lifetime, 2);
	bpf_l3_csum_replace(skb, IP_AT + 10, service, new_service, 2);
	bpf_skb_store_bytes(skb, IP_AT, &new_service, 2, 0);
	bpf_skb_store_bytes(skb, IP_AT + 8, &new_lifetime, 1, 0);
	bpf_skb_store_bytes(skb, IP_AT + 12, &new_from, 4, 0);
	bpf_skb_store_bytes(skb, IP_AT + 16, &new_to, 4, 0);
	bpf_skb_store_bytes(skb, UDP_AT, &new_ports, 4, 0);
	bpf_skb_store_bytes(skb, RTP_AT, after, sizeof(after), 0);
	__sync_fetch_and_add(&stream->forwarded, 1);
	return stream->interface ? bpf_redirect_neigh(stream->interface, 0, 0, 0) : TC_ACT_OK;
}

char _license[] SEC("license") = "Dual MIT/GPL";
