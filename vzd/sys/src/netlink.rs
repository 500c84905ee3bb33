//! A synchronous rtnetlink socket: requests go out, acknowledgements and dumps come back, in the calling
//! thread. vzmon has one thread and vzd's callers are blocking, so neither needs a runtime for this
//! (docs/adr/0010-synchronous-netlink.md). A socket belongs to the network namespace of the thread that
//! opened it, for good.

pub use netlink_packet_core as core;
pub use netlink_packet_route as route;

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    link::{LinkAttribute, LinkMessage},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use std::{io, os::fd::AsFd, time::Duration};

/// A connection to the kernel's routing tables and links.
#[derive(Debug)]
pub struct Netlink {
    socket: Socket,
    sequence: u32,
}

/// How long one answer of the kernel may take before we stop believing in it.
const ANSWER: Duration = Duration::from_secs(10);

impl Netlink {
    /// Opens a socket in this thread's network namespace.
    ///
    /// # Errors
    /// `socket(2)`, `bind(2)`.
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        socket.set_netlink_get_strict_chk(true)?;
        Ok(Self { socket, sequence: 0 })
    }

    fn send(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<u32> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut packet = NetlinkMessage::new(header, NetlinkPayload::from(message));
        packet.finalize();
        let mut buf = vec![0; packet.buffer_len()];
        packet.serialize(&mut buf);
        self.socket.send(&buf, 0)?;
        Ok(self.sequence)
    }

    /// Sends one change and waits for its acknowledgement. `flags` are `NLM_F_CREATE` and the like.
    ///
    /// # Errors
    /// The errno the kernel answered with.
    pub fn change(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        let sequence = self.send(message, flags | NLM_F_ACK)?;
        self.collect(sequence, true).map(|_| ())
    }

    /// Asks for a whole table.
    ///
    /// # Errors
    /// The errno the kernel answered with, or `EINTR` when the table kept changing under us.
    pub fn dump(&mut self, message: RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
        let sequence = self.send(message, NLM_F_DUMP)?;
        self.collect(sequence, false)
    }

    /// Asks for one object.
    ///
    /// # Errors
    /// The errno the kernel answered with.
    pub fn get(&mut self, message: RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
        let sequence = self.send(message, NLM_F_ACK)?;
        self.collect(sequence, true)
    }

    fn collect(&mut self, sequence: u32, ack: bool) -> io::Result<Vec<RouteNetlinkMessage>> {
        let mut out = Vec::new();
        loop {
            if !wait_readable(&self.socket, ANSWER)? {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "no answer from the kernel's netlink"));
            }
            let (bytes, _) = self.socket.recv_from_full()?;
            let mut rest = &bytes[..];
            while rest.len() >= 16 {
                let length = u32::from_ne_bytes([rest[0], rest[1], rest[2], rest[3]]) as usize;
                if length < 16 || length > rest.len() {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "netlink message of impossible length"));
                }
                let this = &rest[..length];
                rest = &rest[length.next_multiple_of(4).min(rest.len())..];
                // An object with an attribute the parser doesn't know how to read is not ours: skip it.
                let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(this) else { continue };
                if message.header.sequence_number != sequence {
                    continue;
                }
                match message.payload {
                    NetlinkPayload::Error(e) => {
                        return match e.code {
                            None => Ok(out),
                            Some(code) => Err(io::Error::from_raw_os_error(-code.get())),
                        };
                    }
                    NetlinkPayload::Done(_) => return Ok(out),
                    NetlinkPayload::InnerMessage(m) => out.push(m),
                    _ if ack => {}
                    _ => {}
                }
            }
        }
    }

    /// A link by name, with its attributes; `None` when there is none.
    ///
    /// # Errors
    /// Anything but `ENODEV`.
    pub fn link(&mut self, name: &str) -> io::Result<Option<LinkMessage>> {
        let mut ask = LinkMessage::default();
        ask.attributes.push(LinkAttribute::IfName(name.to_owned()));
        match self.get(RouteNetlinkMessage::GetLink(ask)) {
            Ok(all) => Ok(all.into_iter().find_map(|m| match m {
                RouteNetlinkMessage::NewLink(l) => Some(l),
                _ => None,
            })),
            Err(e) if e.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Every link.
    ///
    /// # Errors
    /// As [`Netlink::dump`].
    pub fn links(&mut self) -> io::Result<Vec<LinkMessage>> {
        let mut ask = LinkMessage::default();
        ask.header.interface_family = AddressFamily::Unspec;
        Ok(self
            .dump(RouteNetlinkMessage::GetLink(ask))?
            .into_iter()
            .filter_map(|m| match m {
                RouteNetlinkMessage::NewLink(l) => Some(l),
                _ => None,
            })
            .collect())
    }
}

/// The name of a link, out of its attributes.
pub fn link_name(link: &LinkMessage) -> Option<&str> {
    link.attributes.iter().find_map(|a| match a {
        LinkAttribute::IfName(n) => Some(n.as_str()),
        _ => None,
    })
}

/// Waits until a descriptor can be read, or the time is over (false).
///
/// # Errors
/// `poll(2)`.
pub fn wait_readable(fd: &impl AsFd, time: Duration) -> io::Result<bool> {
    let deadline = std::time::Instant::now() + time;
    loop {
        let left = deadline.saturating_duration_since(std::time::Instant::now());
        let spec = rustix::event::Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        let mut fds = [rustix::event::PollFd::new(fd, rustix::event::PollFlags::IN)];
        match rustix::event::poll(&mut fds, Some(&spec)) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

/// Counts the nft rules of this thread's network namespace, up to `most`: one message of a dump for each
/// (linux/netfilter/nf_tables.h).
///
/// # Errors
/// `socket(2)`, or the errno the kernel answered with.
pub fn count_nft_rules(most: u64) -> io::Result<u64> {
    const NFTABLES: u16 = 10 << 8;
    const NEW_RULE: u16 = NFTABLES | 6;
    const GET_RULE: u16 = NFTABLES | 7;
    let mut socket = Socket::new(netlink_sys::protocols::NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    // nlmsghdr, then nfgenmsg of every family.
    let mut ask = 20u32.to_ne_bytes().to_vec();
    ask.extend(GET_RULE.to_ne_bytes());
    ask.extend((NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    ask.extend([0; 12]);
    socket.send(&ask, 0)?;
    let mut count = 0;
    while count < most {
        if !wait_readable(&socket, ANSWER)? {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "no answer from the kernel's netlink"));
        }
        let (bytes, _) = socket.recv_from_full()?;
        let mut rest = &bytes[..];
        while rest.len() >= 16 {
            let length = u32::from_ne_bytes([rest[0], rest[1], rest[2], rest[3]]) as usize;
            if length < 16 || length > rest.len() {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "netlink message of impossible length"));
            }
            match u16::from_ne_bytes([rest[4], rest[5]]) {
                NEW_RULE => count += 1,
                // NLMSG_DONE
                3 => return Ok(count),
                // NLMSG_ERROR
                2 if length >= 20 => {
                    let code = i32::from_ne_bytes([rest[16], rest[17], rest[18], rest[19]]);
                    return if code == 0 { Ok(count) } else { Err(io::Error::from_raw_os_error(-code)) };
                }
                _ => {}
            }
            rest = &rest[length.next_multiple_of(4).min(rest.len())..];
        }
    }
    Ok(most)
}

/// Which kernel events to hear of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Events {
    /// Links and IPv4 and IPv6 routes that change.
    Routing,
    /// nft tables, chains, rules, sets and elements that change.
    Nftables,
    /// Neighbours (ARP and ND entries) that change.
    Neighbours,
}

/// A subscription to kernel events of this thread's network namespace. What changed is not told: whoever
/// wakes up looks for itself, so lost events do no harm.
#[derive(Debug)]
pub struct EventSocket(Socket);

impl EventSocket {
    /// Subscribes.
    ///
    /// # Errors
    /// `socket(2)`, `bind(2)`, `setsockopt(2)`.
    pub fn open(what: Events) -> io::Result<Self> {
        // Group numbers: RTNLGRP_LINK 1, _IPV4_ROUTE 7, _IPV6_ROUTE 11 (rtnetlink.h); NFNLGRP_NFTABLES 7.
        let (protocol, groups): (isize, &[u32]) = match what {
            Events::Routing => (NETLINK_ROUTE, &[1, 7, 11]),
            // RTNLGRP_NEIGH 3.
            Events::Neighbours => (NETLINK_ROUTE, &[3]),
            Events::Nftables => (netlink_sys::protocols::NETLINK_NETFILTER, &[7]),
        };
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        for group in groups {
            socket.add_membership(*group)?;
        }
        socket.set_non_blocking(true)?;
        Ok(Self(socket))
    }

    /// Throws away what is queued; true when `mine` says so of any queued message's bytes, or when
    /// messages were lost.
    pub fn drain(&self, mut mine: impl FnMut(&[u8]) -> bool) -> bool {
        let mut hit = false;
        loop {
            match self.0.recv_from_full() {
                Ok((bytes, _)) => hit |= mine(&bytes),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return hit,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                // ENOBUFS: some were lost, so assume the worst.
                Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => hit = true,
                Err(_) => return true,
            }
        }
    }
}

impl AsFd for EventSocket {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}
