//! The host's side of venet against the real kernel: every test makes network namespaces of its own (a
//! "host", an "outside" machine and containers) and needs root and nft, nothing else.

#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeSet,
    fs::File,
    io::{ErrorKind, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::{AsFd, AsRawFd},
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};
use vz_types::{CtAddr, Ctid, ExitCode, Paths, manager::HostNetwork};
use vzd::network::{Expected, Network};

/// A network namespace.
struct Ns(File);

impl Ns {
    fn new() -> Self {
        let file = std::thread::spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            ip("link set lo up");
            File::open("/proc/thread-self/ns/net").unwrap()
        });
        Self(file.join().unwrap())
    }

    /// Runs in this namespace, in a thread of its own.
    fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|s| {
            s.spawn(|| {
                nix::sched::setns(&self.0, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
                f()
            })
            .join()
            .unwrap()
        })
    }

    fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.0.as_raw_fd()).into()
    }
}

fn ip(args: &str) {
    let out = Command::new("/sbin/ip").args(args.split(' ')).output().unwrap();
    assert!(out.status.success(), "ip {args}: {}", String::from_utf8_lossy(&out.stderr));
}

/// Neighbours are asked from the link-local address, which would be tentative for a second otherwise.
fn no_dad(link: &str) {
    std::fs::write(format!("/proc/sys/net/ipv6/conf/{link}/accept_dad"), "0").unwrap();
}

fn nft(args: &str) -> String {
    let out = Command::new("/usr/sbin/nft").args(args.split(' ')).output().unwrap();
    assert!(out.status.success(), "nft {args}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).into_owned()
}

fn addresses(texts: &[&str]) -> Vec<CtAddr> {
    texts.iter().map(|t| t.parse().unwrap()).collect()
}

fn ct(n: u32) -> Ctid {
    n.try_into().unwrap()
}

/// A host with an uplink to an outside machine that knows nothing of containers.
struct World {
    host: Ns,
    outside: Ns,
    network: Network,
    cts: Vec<(Ctid, Ns, Vec<CtAddr>)>,
}

impl World {
    fn new(root: &str) -> Self {
        let (host, outside) = (Ns::new(), Ns::new());
        host.run(|| {
            ip(&format!(
                "link add up0 type veth peer name eth0 netns /proc/{}/fd/{}",
                std::process::id(),
                outside.0.as_raw_fd()
            ));
            no_dad("up0");
            ip("addr add 192.0.2.1/24 dev up0");
            ip("addr add 2001:db8::1/64 dev up0 nodad");
            ip("link set up0 up");
        });
        outside.run(|| {
            no_dad("eth0");
            ip("addr add 192.0.2.2/24 dev eth0");
            ip("addr add 2001:db8::2/64 dev eth0 nodad");
            ip("link set eth0 up");
        });
        host.run(|| {
            ip("route add default via 192.0.2.2");
            ip("-6 route add default via 2001:db8::2");
        });
        // A link that has just come up loses its first packets.
        connect(&host, &outside, "192.0.2.2").unwrap();
        connect(&host, &outside, "2001:db8::2").unwrap();
        let network = Network::new(&Paths::new(root), &HostNetwork::default()).unwrap();
        host.run(|| network.prepare_host().unwrap());
        host.run(|| network.load_table(&[]).unwrap());
        Self { host, outside, network, cts: Vec::new() }
    }

    fn add(&mut self, ctid: u32, own: &[&str]) {
        let (ctid, own, ns) = (ct(ctid), addresses(own), Ns::new());
        self.host.run(|| self.network.allow(ctid, &own).unwrap());
        self.host.run(|| self.network.attach(ctid, ns.0.as_fd(), &own).unwrap());
        inside(&ns, &own);
        self.cts.push((ctid, ns, own));
    }

    fn expected(&self) -> Vec<Expected> {
        self.cts.iter().map(|(c, ns, a)| Expected { ctid: *c, addresses: a.clone(), netns: ns.path() }).collect()
    }

    fn ns(&self, n: usize) -> &Ns {
        &self.cts[n].1
    }
}

/// What vzmon does inside.
fn inside(ns: &Ns, own: &[CtAddr]) {
    ns.run(|| {
        ip("link set venet0 up arp off");
        for a in own {
            ip(&format!("addr add {a}/{} dev venet0{}", a.prefix(), if a.ip().is_ipv6() { " nodad" } else { "" }));
        }
        for (v4, family) in [(true, "-4"), (false, "-6")] {
            if let Some(first) = own.iter().find(|a| a.ip().is_ipv4() == v4) {
                ip(&format!("{family} route replace default dev venet0 src {first}"));
            }
        }
    });
}

/// Connects from one namespace to a listener in another; answers which source the listener saw.
fn connect(from: &Ns, to: &Ns, target: &str) -> std::io::Result<IpAddr> {
    let target: IpAddr = target.parse().unwrap();
    let any = if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let listener = to.run(|| TcpListener::bind(any).unwrap());
    let port = listener.local_addr().unwrap().port();
    let mut stream = from.run(|| TcpStream::connect_timeout(&SocketAddr::new(target, port), Duration::from_secs(5)))?;
    let (mut peer, source) = listener.accept()?;
    peer.write_all(b"x")?;
    let mut byte = [0];
    stream.read_exact(&mut byte)?;
    Ok(source.ip())
}

/// Sends a datagram from a forged source; did it arrive?
fn forged_arrives(from: &Ns, source: &str, to: &Ns, target: &str) -> bool {
    let (source, target): (IpAddr, IpAddr) = (source.parse().unwrap(), target.parse().unwrap());
    let any = if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let receiver = to.run(|| UdpSocket::bind(any).unwrap());
    receiver.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let port = receiver.local_addr().unwrap().port();
    let whole = if source.is_ipv4() { "32" } else { "128 nodad" };
    from.run(|| {
        ip(&format!(
            "addr add {source}/{} dev venet0{}",
            whole.split(' ').next().unwrap(),
            if source.is_ipv6() { " nodad" } else { "" }
        ));
        let sender = UdpSocket::bind(SocketAddr::new(source, 0)).unwrap();
        let _ = sender.send_to(b"forged", SocketAddr::new(target, port));
        ip(&format!("addr del {source}/{} dev venet0", whole.split(' ').next().unwrap()));
    });
    let received = loop {
        match receiver.recv_from(&mut [0; 16]) {
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            r => break r,
        }
    };
    match received {
        Ok(_) => true,
        Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => false,
        Err(e) => panic!("{e}"),
    }
}

#[test]
fn containers_reach_each_other_the_host_and_the_outside() {
    let mut w = World::new("/tmp/storage-net-reach");
    w.add(101, &["10.0.0.2", "fd00::2"]);
    w.add(102, &["10.0.0.3", "fd00::3"]);
    w.add(103, &["192.0.2.50", "2001:db8::50"]);
    for (from, to, target, seen) in [
        (w.ns(0), w.ns(1), "10.0.0.3", "10.0.0.2"),
        (w.ns(0), w.ns(1), "fd00::3", "fd00::2"),
        (w.ns(0), w.ns(2), "192.0.2.50", "10.0.0.2"),
        (&w.host, w.ns(0), "10.0.0.2", "192.0.2.1"),
        (&w.host, w.ns(0), "fd00::2", "2001:db8::1"),
        (w.ns(0), &w.host, "192.0.2.1", "10.0.0.2"),
        (w.ns(0), &w.host, "2001:db8::1", "fd00::2"),
        // Private sources leave under the host's address; one on the uplink's own subnet keeps its own.
        (w.ns(0), &w.outside, "192.0.2.2", "192.0.2.1"),
        (w.ns(0), &w.outside, "2001:db8::2", "2001:db8::1"),
        (w.ns(2), &w.outside, "192.0.2.2", "192.0.2.50"),
        (w.ns(2), &w.outside, "2001:db8::2", "2001:db8::50"),
        // Found from outside by proxy ARP and ND.
        (&w.outside, w.ns(2), "192.0.2.50", "192.0.2.2"),
        (&w.outside, w.ns(2), "2001:db8::50", "2001:db8::2"),
    ] {
        assert_eq!(connect(from, to, target).map(|ip| ip.to_string()).ok().as_deref(), Some(seen), "to {target}");
    }
}

#[test]
fn a_host_without_an_address_still_talks_to_its_containers() {
    let (host, ns) = (Ns::new(), Ns::new());
    let network = Network::new(&Paths::new("/tmp/storage-net-bare"), &HostNetwork::default()).unwrap();
    let own = addresses(&["10.0.0.2", "fd00::2"]);
    host.run(|| network.prepare_host().unwrap());
    host.run(|| network.load_table(&[(ct(101), own.clone())]).unwrap());
    host.run(|| network.attach(ct(101), ns.0.as_fd(), &own).unwrap());
    inside(&ns, &own);
    connect(&host, &ns, "10.0.0.2").unwrap();
    connect(&host, &ns, "fd00::2").unwrap();
}

#[test]
fn an_address_that_is_not_its_own_gets_nowhere() {
    let mut w = World::new("/tmp/storage-net-spoof");
    w.add(101, &["10.0.0.2", "fd00::2"]);
    w.add(102, &["10.0.0.3", "fd00::3"]);
    for (source, to, target) in [
        ("10.0.0.3", &w.outside, "192.0.2.2"),
        ("10.0.0.99", &w.outside, "192.0.2.2"),
        ("10.0.0.99", w.ns(1), "10.0.0.3"),
        ("192.0.2.2", &w.host, "192.0.2.1"),
        ("fd00::99", w.ns(1), "fd00::3"),
        ("2001:db8::2", &w.host, "2001:db8::1"),
    ] {
        assert!(!forged_arrives(w.ns(0), source, to, target), "{source} to {target}");
    }
    // The same way of sending does work once the address is the container's.
    let more = addresses(&["10.0.0.99"]);
    w.host.run(|| w.network.allow(ct(101), &more).unwrap());
    w.host.run(|| w.network.add_addresses(ct(101), &more).unwrap());
    assert!(forged_arrives(w.ns(0), "10.0.0.99", w.ns(1), "10.0.0.3"));
    w.host.run(|| w.network.del_addresses(ct(101), &more).unwrap());
    w.host.run(|| w.network.deny(ct(101), &more).unwrap());
    w.host.run(|| w.network.deny(ct(101), &more).unwrap());
    assert!(!forged_arrives(w.ns(0), "10.0.0.99", w.ns(1), "10.0.0.3"));
    assert!(connect(w.ns(0), w.ns(1), "10.0.0.3").is_ok(), "its own address still works");
}

#[test]
fn a_stopped_container_leaves_nothing() {
    let mut w = World::new("/tmp/storage-net-leave");
    let state = |w: &World| {
        w.host.run(|| {
            let list = |args: &[&str]| {
                String::from_utf8(Command::new("/sbin/ip").args(args).output().unwrap().stdout).unwrap()
            };
            (
                list(&["-o", "link"]),
                list(&["route"]),
                list(&["-6", "route"]),
                list(&["neigh", "show", "proxy"]),
                nft("list ruleset"),
            )
        })
    };
    let before = state(&w);
    w.add(101, &["192.0.2.60", "2001:db8::60"]);
    assert_ne!(state(&w), before);
    let own = w.cts[0].2.clone();
    w.host.run(|| w.network.detach(ct(101), &own).unwrap());
    w.host.run(|| w.network.deny(ct(101), &own).unwrap());
    assert_eq!(state(&w), before);
    w.host.run(|| w.network.detach(ct(101), &own).unwrap());
    // What a crash leaves is swept.
    w.add(102, &["192.0.2.61"]);
    assert_eq!(w.host.run(|| w.network.links().unwrap()).len(), 1);
    let said = w.host.run(|| w.network.sweep(&BTreeSet::new()));
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(w.host.run(|| w.network.links().unwrap()).is_empty());
}

/// Everything that is wrong is put back: what was done, and whose link was made anew.
fn put_back(w: &World) -> (Vec<String>, Vec<Ctid>) {
    let (mut said, mut relinked) = (w.network.repair_host(true).unwrap(), Vec::new());
    let expected = w.expected();
    for ctid in w.network.lacking(&expected).unwrap() {
        let repaired = w.network.repair(expected.iter().find(|e| e.ctid == ctid).unwrap()).unwrap();
        said.extend(repaired.said);
        relinked.extend(repaired.relinked.then_some(ctid));
    }
    (said, relinked)
}

#[test]
fn what_others_break_is_noticed_and_put_back() {
    let mut w = World::new("/tmp/storage-net-repair");
    w.add(101, &["10.0.0.2", "fd00::2"]);
    w.add(102, &["10.0.0.3"]);
    let repair = |w: &World| w.host.run(|| put_back(w));
    assert_eq!(repair(&w), Default::default(), "all is well");

    let table = Paths::new("/tmp/storage-net-repair").nft_table();
    let link = Paths::new("/tmp/storage-net-repair").link(ct(101));
    for breakage in [
        "flush ruleset".to_owned(),
        format!("delete table inet {table}"),
        format!("delete table arp {table}"),
        format!("flush chain inet {table} from_ct"),
        format!("flush set inet {table} allowed4"),
        format!("add element inet {table} allowed4 {{ {link} . 10.0.0.3 }}"),
        format!("insert rule inet {table} from_ct accept"),
    ] {
        let watched = w.host.run(|| {
            let mut watch = w.network.watch().unwrap();
            nft(&breakage);
            let start = Instant::now();
            watch.wait(Duration::from_secs(20)).unwrap();
            start.elapsed()
        });
        assert!(watched < Duration::from_secs(5), "{breakage} was not noticed");
        let repaired = repair(&w);
        assert_eq!(repaired.0.len(), 1, "{breakage}: {repaired:?}");
        assert_eq!(repair(&w), Default::default(), "{breakage}");
        assert!(!forged_arrives(w.ns(0), "10.0.0.3", &w.outside, "192.0.2.2"), "{breakage}");
        assert!(connect(w.ns(0), w.ns(1), "10.0.0.3").is_ok(), "{breakage}");
    }
    w.host.run(|| ip("route del 10.0.0.2/32"));
    assert!(repair(&w).0[0].contains("10.0.0.2"));
    assert!(connect(w.ns(1), w.ns(0), "10.0.0.2").is_ok());

    let second = w.host.run(|| {
        let mut watch = w.network.watch().unwrap();
        ip(&format!("link del {link}"));
        watch.wait(Duration::from_secs(20)).unwrap();
        put_back(&w)
    });
    assert_eq!(second.1, [ct(101)]);
    inside(w.ns(0), &w.cts[0].2);
    assert!(connect(w.ns(0), w.ns(1), "10.0.0.3").is_ok());
    assert_eq!(repair(&w), Default::default());
    // An addition comes through even when the table has just been flushed.
    w.host.run(|| {
        nft("flush ruleset");
        w.network.allow(ct(102), &addresses(&["10.0.0.4"])).unwrap();
    });
    assert_eq!(repair(&w), Default::default());
}

#[test]
fn an_address_in_use_is_refused() {
    let mut w = World::new("/tmp/storage-net-probe");
    w.add(101, &["10.0.0.2"]);
    let probe = |a: &str| {
        let a = a.parse().unwrap();
        let start = Instant::now();
        let r = w.host.run(|| w.network.probe(&a));
        (r, start.elapsed())
    };
    for (taken, word) in [
        ("192.0.2.1", "this host"),
        ("2001:db8::1", "this host"),
        ("192.0.2.2", "hardware address"),
        ("2001:db8::2", "hardware address"),
        ("192.0.2.255", "this host"),
    ] {
        let e = probe(taken).0.expect_err(taken);
        assert_eq!(e.exit_code(), ExitCode::IpInUse);
        assert!(e.to_string().contains(word), "{e}");
    }
    for free in ["192.0.2.77", "2001:db8::77", "10.9.9.9", "fd00::9", "198.51.100.1", "10.0.0.2"] {
        let (r, took) = probe(free);
        r.unwrap();
        assert!(took < Duration::from_millis(900), "{free} took {took:?}");
    }
    w.host.run(|| ip("route add 10.7.7.7/32 dev up0"));
    assert!(probe("10.7.7.7").0.unwrap_err().to_string().contains("up0"));
}

#[test]
fn no_link_comes_up_without_its_filter() {
    let (host, ns) = (Ns::new(), Ns::new());
    let network = Network::new(&Paths::new("/tmp/storage-net-unloaded"), &HostNetwork::default()).unwrap();
    host.run(|| network.attach(ct(101), ns.0.as_fd(), &addresses(&["10.0.0.2"])).unwrap());
    assert!(host.run(|| nft("list tables")).contains(&Paths::new("/tmp/storage-net-unloaded").nft_table()));
}

#[test]
fn two_managers_side_by_side_do_not_meet() {
    let mut w = World::new("/tmp/storage-net-one");
    w.add(101, &["10.0.0.2"]);
    for root in ["/tmp/storage-net-two", "/"] {
        let (other, ns) = (Network::new(&Paths::new(root), &HostNetwork::default()).unwrap(), Ns::new());
        let own = addresses(&["10.0.1.2"]);
        w.host.run(|| other.prepare_host().unwrap());
        w.host.run(|| other.load_table(&[(ct(101), own.clone())]).unwrap());
        w.host.run(|| other.attach(ct(101), ns.0.as_fd(), &own).unwrap());
        inside(&ns, &own);
        assert!(connect(w.ns(0), &ns, "10.0.1.2").is_ok());
        assert!(connect(&ns, w.ns(0), "10.0.0.2").is_ok());
        assert!(!forged_arrives(&ns, "10.0.0.2", &w.outside, "192.0.2.2"));
        assert!(w.host.run(|| put_back(&w)).0.is_empty());
        assert!(w.host.run(|| w.network.probe(&own[0])).is_err(), "its address is taken");
        w.host.run(|| other.detach(ct(101), &own).unwrap());
        w.host.run(|| other.remove_tables().unwrap());
        assert!(w.host.run(|| put_back(&w)).0.is_empty());
        assert!(connect(w.ns(0), &w.outside, "192.0.2.2").is_ok());
    }
}

#[test]
fn attaching_and_detaching_take_a_few_milliseconds() {
    let mut w = World::new("/tmp/storage-net-time");
    w.add(101, &["10.0.0.2"]);
    let mut times: Vec<Duration> = (0..10)
        .map(|n| {
            let (ns, own) = (Ns::new(), addresses(&["10.0.0.3", "fd00::3"]));
            let took = w.host.run(|| {
                let start = Instant::now();
                w.network.attach(ct(200 + n), ns.0.as_fd(), &own).unwrap();
                start.elapsed()
            });
            w.host.run(|| w.network.detach(ct(200 + n), &own).unwrap());
            took
        })
        .collect();
    times.sort();
    let mut gone: Vec<Duration> = (0..10)
        .map(|n| {
            let (ns, own) = (Ns::new(), addresses(&["10.0.0.3", "fd00::3"]));
            w.host.run(|| w.network.attach(ct(300 + n), ns.0.as_fd(), &own).unwrap());
            drop(ns);
            w.host.run(|| {
                let start = Instant::now();
                w.network.detach(ct(300 + n), &own).unwrap();
                start.elapsed()
            })
        })
        .collect();
    gone.sort();
    eprintln!("detach after its namespace: median {:?}, worst {:?}", gone[5], gone[9]);
    eprintln!("attach: median {:?}, worst {:?}", times[5], times[9]);
    assert!(times[5] < Duration::from_millis(50), "{times:?}");
}
