//! The host's side of rtnetlink: one connection of the rtnetlink crate with a current-thread runtime of its own,
//! for callers that block. Confined here; the rest of the network room sees [`Netlink`] and the packet types.
//! vzmon, which has no runtime, configures the inside of a container over `vz_sys::netlink` instead.

use futures::StreamExt;
use rtnetlink::{
    Handle,
    packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload},
    packet_route::{
        AddressFamily, RouteNetlinkMessage,
        link::{LinkAttribute, LinkExtentMask, LinkMessage},
    },
};
use std::{io, time::Duration};
use tokio::runtime::{Builder, Runtime};

/// How long one answer of the kernel may take before we stop believing in it.
const ANSWER: Duration = Duration::from_secs(10);

/// A connection to the kernel's routing tables and links, in the network namespace of the thread that opened it.
#[derive(Debug)]
pub(super) struct Netlink {
    runtime: Runtime,
    handle: Handle,
}

impl Netlink {
    pub(super) fn open() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_io().enable_time().build()?;
        let handle = {
            let _inside = runtime.enter();
            let (connection, handle, _) = rtnetlink::new_connection_with_strict_check()?;
            runtime.spawn(connection);
            handle
        };
        Ok(Self { runtime, handle })
    }

    /// Sends one change and waits for its acknowledgement. `flags` are `NLM_F_CREATE` and the like; the error is the
    /// errno the kernel answered with.
    pub(super) fn change(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.ask(message, flags | NLM_F_ACK).map(|_| ())
    }

    /// Asks for a whole table.
    pub(super) fn dump(&mut self, message: RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.ask(message, NLM_F_DUMP)
    }

    /// Asks for one object.
    pub(super) fn get(&mut self, message: RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.ask(message, NLM_F_ACK)
    }

    fn ask(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<Vec<RouteNetlinkMessage>> {
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        let packet = NetlinkMessage::new(header, NetlinkPayload::from(message));
        let mut answers = self.handle.request(packet).map_err(io::Error::other)?;
        let collect = async {
            let mut out = Vec::new();
            while let Some(answer) = answers.next().await {
                match answer.payload {
                    NetlinkPayload::Error(e) => {
                        if let Some(code) = e.code {
                            return Err(io::Error::from_raw_os_error(-code.get()));
                        }
                    }
                    NetlinkPayload::InnerMessage(m) => out.push(m),
                    _ => {}
                }
            }
            Ok(out)
        };
        let late = |_| io::Error::new(io::ErrorKind::TimedOut, "no answer from the kernel's netlink");
        self.runtime.block_on(async { tokio::time::timeout(ANSWER, collect).await.map_err(late)? })
    }

    /// A link by name, with its attributes; `None` when there is none.
    pub(super) fn link(&mut self, name: &str) -> io::Result<Option<LinkMessage>> {
        let mut ask = LinkMessage::default();
        ask.attributes.push(LinkAttribute::IfName(name.to_owned()));
        self.one_link(ask)
    }

    /// A link by its index.
    pub(super) fn link_at(&mut self, index: u32) -> io::Result<Option<LinkMessage>> {
        let mut ask = LinkMessage::default();
        ask.header.index = index;
        self.one_link(ask)
    }

    fn one_link(&mut self, ask: LinkMessage) -> io::Result<Option<LinkMessage>> {
        match self.get(RouteNetlinkMessage::GetLink(ask)) {
            Ok(all) => Ok(all.into_iter().find_map(as_link)),
            Err(e) if e.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Every link, without its statistics, which would be most of the answer.
    pub(super) fn links(&mut self) -> io::Result<Vec<LinkMessage>> {
        let mut ask = LinkMessage::default();
        ask.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        ask.header.interface_family = AddressFamily::Unspec;
        Ok(self.dump(RouteNetlinkMessage::GetLink(ask))?.into_iter().filter_map(as_link).collect())
    }
}

fn as_link(message: RouteNetlinkMessage) -> Option<LinkMessage> {
    match message {
        RouteNetlinkMessage::NewLink(link) => Some(link),
        _ => None,
    }
}
