//! venet: a container is reached at, and speaks from, exactly its own addresses. Everything happens between
//! network namespaces of the test: the containers, the test host, and an outside world.

#![allow(clippy::unwrap_used)] // a panic is how a test says no

use std::{
    io::{ErrorKind, Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::Duration,
};
use vz_tests::{NetNs, Rig, dns, template::Template::Tiny, wait};

const SOON: Duration = Duration::from_secs(10);
/// Long enough for a packet within one machine to arrive, if it arrives at all.
const NEVER: Duration = Duration::from_millis(600);

const A4: &str = "10.99.0.1";
const A6: &str = "fd99::1";
const B4: &str = "10.99.0.2";
const B6: &str = "fd99::2";

/// 101 and 102, both running, each with an IPv4 and an IPv6 address.
fn two() -> Rig {
    let rig = Rig::new(&[Tiny]);
    start_two(&rig);
    rig
}

fn start_two(rig: &Rig) {
    for (ctid, v4, v6) in [(101, A4, A6), (102, B4, B6)] {
        rig.create(ctid, Tiny, &["--ipadd", v4, "--ipadd", v6]);
        rig.ok(&["start", &ctid.to_string()]);
    }
}

fn ct_net(rig: &Rig, ctid: u32) -> NetNs {
    NetNs::of(rig.record(ctid).init.pid).unwrap()
}

fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse::<IpAddr>().unwrap(), port)
}

/// Who a server in `there` at `address` sees when somebody in `from` connects; `None`: the connection fails.
fn seen(from: &NetNs, there: &NetNs, address: &str) -> Option<IpAddr> {
    // A container that has just been recorded as booted gets its addresses a moment later.
    let bound = wait::retry(Duration::from_secs(5), Duration::from_millis(50), || {
        there.inside(|| TcpListener::bind(at(address, 0))).ok()
    });
    let listener = bound.unwrap_or_else(|| panic!("{address} cannot be listened on"));
    let port = listener.local_addr().unwrap().port();
    let mut client = from.inside(|| TcpStream::connect_timeout(&at(address, port), Duration::from_secs(3)).ok())?;
    let (mut server, peer) = listener.accept().unwrap();
    // Data both ways, more than one segment.
    let data = vec![7u8; 100_000];
    std::thread::scope(|s| {
        let expected = data.len();
        let echo = s.spawn(move || {
            let mut got = vec![0; expected];
            server.read_exact(&mut got).unwrap();
            server.write_all(&got).unwrap();
        });
        client.set_read_timeout(Some(SOON)).unwrap();
        client.write_all(&data).unwrap();
        let mut back = vec![0; data.len()];
        client.read_exact(&mut back).unwrap();
        assert_eq!(back, data);
        echo.join().unwrap();
    });
    Some(peer.ip().to_canonical())
}

#[test]
fn containers_and_host_reach_each_other_on_their_own_addresses() {
    let rig = two();
    let (a, b) = (ct_net(&rig, 101), ct_net(&rig, 102));
    for (from, there, address, source) in [
        (&a, &b, B4, Some(A4)),
        (&a, &b, B6, Some(A6)),
        (&b, &a, A4, Some(B4)),
        (&b, &a, A6, Some(B6)),
        (&rig.host, &a, A4, None),
        (&rig.host, &a, A6, None),
    ] {
        let peer = seen(from, there, address).unwrap_or_else(|| panic!("{address} cannot be reached"));
        if let Some(source) = source {
            assert_eq!(peer, source.parse::<IpAddr>().unwrap(), "the CT speaks from its own address");
        }
    }
    // The host at an address of its own, from inside.
    rig.host.ip("addr add 10.98.0.1/32 dev lo");
    assert_eq!(seen(&a, &rig.host, "10.98.0.1"), Some(A4.parse().unwrap()));
}

#[test]
fn inside_there_is_one_link_with_whole_host_addresses_and_a_default_route() {
    let rig = two();
    let links = rig.inside(101, "ip -o link | awk '{print $2}'");
    assert_eq!(
        links.lines().map(|l| l.trim_end_matches(':').split('@').next().unwrap_or("")).collect::<Vec<_>>(),
        ["lo", "venet0"]
    );
    let addresses = rig.inside(101, "ip addr show venet0");
    assert!(addresses.contains("10.99.0.1/32") && addresses.contains("fd99::1/128"), "{addresses}");
    assert!(rig.inside(101, "ip route").contains("default dev venet0"));
    assert!(rig.inside(101, "ip -6 route").contains("default dev venet0"));
    assert!(rig.inside(101, "ip addr show lo").contains("127.0.0.1/8"));
}

#[test]
fn several_addresses_come_and_go_hot_and_old_ones_stop_answering() {
    let rig = two();
    let a = ct_net(&rig, 101);
    rig.ok(&["set", "101", "--ipadd", "10.99.1.1", "--ipadd", "10.99.1.2", "--ipadd", "fd99::1:1", "--save"]);
    for address in ["10.99.1.1", "10.99.1.2", "fd99::1:1", A4] {
        assert!(seen(&rig.host, &a, address).is_some(), "{address}");
    }
    rig.ok(&["set", "101", "--ipdel", "10.99.1.1", "--save"]);
    assert!(!rig.host.ip("route show").stdout.contains("10.99.1.1"));
    // Although it still puts the address on its link, nothing comes of it.
    rig.inside(101, "ip addr add 10.99.1.1/32 dev venet0");
    assert_eq!(seen(&rig.host, &a, "10.99.1.1"), None);
    // Somebody else may have it now.
    rig.ok(&["set", "102", "--ipadd", "10.99.1.1", "--save"]);
    assert!(seen(&rig.host, &ct_net(&rig, 102), "10.99.1.1").is_some());
}

#[test]
fn an_address_that_is_not_its_own_gets_nowhere() {
    let rig = two();
    rig.host.ip("addr add 10.98.0.1/32 dev lo");
    rig.host.ip("-6 addr add fd98::1/128 dev lo");
    for (victim, target, own) in
        [(B4, "10.98.0.1", A4), ("192.0.2.66", "10.98.0.1", A4), (B6, "fd98::1", A6), ("fd00:66::1", "fd98::1", A6)]
    {
        let receiver = rig.host.inside(|| UdpSocket::bind(at(target, 9))).unwrap();
        receiver.set_read_timeout(Some(NEVER)).unwrap();
        let mut buffer = [0; 16];
        // With its own address it arrives, so a silence below means the filter.
        rig.inside(101, &format!("probe bind {own} {target}"));
        let (_, from) = receiver.recv_from(&mut buffer).unwrap();
        assert_eq!(from.ip(), own.parse::<IpAddr>().unwrap());
        // Put on the link or only borrowed, a foreign one does not.
        rig.vzctl(&["exec", "101", &format!("probe bind {victim} {target}")]);
        let prefix = if victim.contains(':') { 128 } else { 32 };
        rig.vzctl(&["exec", "101", &format!("ip addr add {victim}/{prefix} dev venet0; probe bind {victim} {target}; ip addr del {victim}/{prefix} dev venet0")]);
        match receiver.recv_from(&mut buffer) {
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            other => panic!("a packet from {victim} got through: {other:?}"),
        }
    }
    // And it does not take the victim's traffic away.
    rig.inside(101, &format!("ip addr add {B4}/32 dev venet0"));
    assert!(seen(&rig.host, &ct_net(&rig, 102), B4).is_some());
}

#[test]
fn the_filter_is_there_before_the_link_is_up() {
    let rig = Rig::new(&[Tiny]);
    rig.create(101, Tiny, &["--ipadd", A4]);
    // Configured, not started: the rules know the pair of link and address already.
    let link = rig.paths.link(vz_types::Ctid::try_from(101).unwrap());
    let rules = rig.host.sh("nft list ruleset").ok().stdout;
    assert!(rules.contains(&link) && rules.contains(A4), "{rules}");
    rig.ok(&["destroy", "101"]);
    let rules = rig.host.sh("nft list ruleset").ok().stdout;
    assert!(!rules.contains(&link) && !rules.contains(A4), "{rules}");
}

#[test]
fn private_addresses_reach_the_outside_under_the_hosts_own() {
    let rig = Rig::stopped(&[Tiny]);
    let out = rig.outside();
    rig.start_vzd(&[]);
    start_two(&rig);
    let a = ct_net(&rig, 101);
    assert_eq!(seen(&a, &out, "198.51.100.1"), Some("198.51.100.2".parse().unwrap()));
    assert_eq!(seen(&a, &out, "2001:db8:51::1"), Some("2001:db8:51::2".parse().unwrap()));
    // Between containers and to the host nobody is renamed.
    assert_eq!(seen(&a, &ct_net(&rig, 102), B4), Some(A4.parse().unwrap()));
}

#[test]
fn a_public_address_is_answered_for_on_the_uplink_and_kept_as_it_is() {
    let rig = Rig::stopped(&[Tiny]);
    let out = rig.outside();
    rig.start_vzd(&[]);
    // Out of the uplink's own network: nobody routes it to us, the host answers ARP and ND for it.
    rig.create(101, Tiny, &["--ipadd", "198.51.100.77", "--ipadd", "2001:db8:51::77"]);
    rig.ok(&["start", "101"]);
    let a = ct_net(&rig, 101);
    assert!(seen(&out, &a, "198.51.100.77").is_some());
    assert!(seen(&out, &a, "2001:db8:51::77").is_some());
    assert_eq!(seen(&a, &out, "198.51.100.1"), Some("198.51.100.77".parse().unwrap()));
    assert_eq!(seen(&a, &out, "2001:db8:51::1"), Some("2001:db8:51::77".parse().unwrap()));
    rig.ok(&["stop", "101", "--fast"]);
    assert!(rig.host.sh("ip neigh show proxy; ip -6 neigh show proxy").ok().stdout.trim().is_empty());
}

#[test]
fn names_are_resolved_by_the_server_it_was_given() {
    let rig = Rig::stopped(&[Tiny]);
    let out = rig.outside();
    let stub = dns::Stub::start(&out, "198.51.100.1".parse().unwrap(), Ipv4Addr::new(198, 51, 100, 1)).unwrap();
    rig.start_vzd(&[]);
    rig.create(101, Tiny, &["--ipadd", A4, "--nameserver", "198.51.100.1", "--searchdomain", "example.org"]);
    rig.ok(&["start", "101"]);
    let answer = rig.inside(101, "nslookup www.example.net");
    assert!(answer.contains("198.51.100.1"), "{answer}");
    assert!(stub.questions().iter().any(|(name, _)| name == "www.example.net"));
    // Changed while it runs.
    rig.ok(&["set", "101", "--nameserver", "198.51.100.9", "--save"]);
    assert!(rig.inside(101, "cat /etc/resolv.conf").contains("198.51.100.9"));
}

#[test]
fn rules_somebody_flushed_are_back_within_a_minute() {
    let rig = two();
    let a = ct_net(&rig, 101);
    let before = rig.census().of("nft").join("\n");
    let rules = rig.host.sh("nft -s list ruleset").ok().stdout;
    rig.host.sh("nft flush ruleset").ok();
    let back = wait::retry(Duration::from_secs(60), Duration::from_millis(250), || {
        (rig.host.sh("nft -s list ruleset").stdout == rules).then_some(())
    });
    assert!(back.is_some(), "after a flush:\n{}\n--- vzd\n{}", rig.host.sh("nft list ruleset").stdout, rig.vzd_log(30));
    assert_eq!(rig.census().of("nft").join("\n"), before);
    assert!(seen(&a, &ct_net(&rig, 102), B4).is_some(), "healthy containers were not touched");
}

#[test]
fn a_route_somebody_flushed_is_back_without_a_restart() {
    let rig = two();
    let init = rig.record(101).init;
    let link = rig.record(101).link.expect("a link");
    rig.host.ip(&format!("link set {link} down"));
    rig.host.ip(&format!("route flush dev {link}"));
    let back = wait::retry(Duration::from_secs(60), Duration::from_millis(250), || {
        rig.host.ip("route show").stdout.contains(A4).then_some(())
    });
    assert!(back.is_some(), "the route never came back\n--- vzd\n{}", rig.vzd_log(30));
    assert!(seen(&rig.host, &ct_net(&rig, 101), A4).is_some());
    assert_eq!(rig.record(101).init, init);
}

#[test]
fn addresses_and_link_outlive_a_reboot_from_inside_without_vzd() {
    let rig = two();
    let link = rig.record(101).link;
    rig.kill_vzd();
    rig.vzctl(&["exec", "101", "reboot"]);
    rig.wait_record(101, Duration::from_secs(20), |r| r.boots == 2);
    assert_eq!(rig.record(101).link, link);
    assert!(seen(&rig.host, &ct_net(&rig, 101), A4).is_some());
    assert!(seen(&ct_net(&rig, 102), &ct_net(&rig, 101), A6).is_some());
    rig.start_vzd(&[]);
    assert!(seen(&rig.host, &ct_net(&rig, 101), A4).is_some());
}

#[test]
fn a_reboot_from_inside_ends_rules_links_and_routes_made_inside_as_on_a_machine() {
    let rig = two();
    let link = rig.record(101).link.expect("a link");
    let on_host = || {
        (rig.host.ip(&format!("-o link show {link}")).stdout.split(':').next().map(str::to_owned), sent(&rig, &link))
    };
    let (index, before) = on_host();
    let a = ct_net(&rig, 101);
    a.ip("link add left0 type veth peer name left1");
    a.ip("route add blackhole 192.0.2.0/24");
    a.ip("addr add 10.55.0.1/32 dev lo");
    // A customer who has locked himself out, and reboots.
    a.sh("nft add table inet mine && nft add chain inet mine in '{ type filter hook input priority 0; policy drop; }'")
        .ok();
    assert!(seen(&rig.host, &a, A4).is_none());
    drop(a);
    rig.vzctl(&["exec", "101", "reboot"]);
    rig.wait_record(101, Duration::from_secs(20), |r| r.boots == 2);
    let a = ct_net(&rig, 101);
    assert!(
        seen(&rig.host, &a, A4).is_some()
            && seen(&rig.host, &a, A6).is_some()
            && seen(&a, &ct_net(&rig, 102), B4).is_some()
    );
    assert_eq!(a.sh("nft list tables").ok().text(), "");
    let all = a.ip("-o link").stdout + &a.ip("route show table all").stdout + &a.ip("-o addr").stdout;
    assert!(!all.contains("left0") && !all.contains("blackhole") && !all.contains("10.55.0.1"), "{all}");
    let (still, after) = on_host();
    assert!(still == index && after > before, "the host's side is the same link, and counts on: {before} then {after}");
}

/// Bytes that went over a host-side link towards its container.
fn sent(rig: &Rig, link: &str) -> u64 {
    rig.host.sh(&format!("awk '$1 == \"{link}:\" {{ print $10 }}' /proc/net/dev")).text().parse().unwrap()
}

#[test]
fn a_container_without_addresses_has_no_way_out() {
    let rig = Rig::new(&[Tiny]);
    rig.create(101, Tiny, &[]);
    rig.ok(&["start", "101"]);
    rig.host.ip("addr add 10.98.0.1/32 dev lo");
    let out = rig.vzctl(&["exec2", "101", "ping -c1 -W1 10.98.0.1"]);
    assert_ne!(out.code(), 0, "{out}");
    rig.inside(101, "ping -c1 -W1 127.0.0.1");
}

#[test]
fn a_link_that_root_inside_renamed_or_deleted_keeps_no_reboot_from_coming_up() {
    let rig = two();
    ct_net(&rig, 101).ip("link set venet0 down");
    ct_net(&rig, 101).ip("link set venet0 name eth0");
    rig.vzctl(&["exec", "101", "reboot"]);
    rig.wait_record(101, Duration::from_secs(20), |r| r.boots == 2);
    assert!(seen(&rig.host, &ct_net(&rig, 101), A4).is_some(), "the link has its name and its addresses again");
    ct_net(&rig, 101).ip("link del venet0");
    rig.vzctl(&["exec", "101", "reboot"]);
    rig.wait_record(101, Duration::from_secs(20), |r| r.boots == 3);
    assert_eq!(rig.inside(101, "echo it runs"), "it runs");
    rig.ok(&["restart", "101", "--fast"]);
    assert!(seen(&rig.host, &ct_net(&rig, 101), A4).is_some());
}

/// postgrey and others ask for addresses of configured families only (AI_ADDRCONFIG), and did not start:
/// "Can't connect to TCP port 10023 on ::1".
#[test]
fn programs_that_resolve_with_addrconfig_find_the_ipv6_loopback_where_there_are_ipv4_addresses_alone() {
    let rig = Rig::new(&[Tiny]);
    rig.create(101, Tiny, &["--ipadd", A4]);
    rig.ok(&["start", "101"]);
    let both = |when: &str| {
        assert_eq!(rig.inside(101, "probe resolve ::1 127.0.0.1"), "::1 0\n127.0.0.1 0", "{when}");
    };
    let link_local = || rig.inside(101, "ip -6 addr show venet0 scope link | grep -c inet6 || true");
    both("after a start");
    assert_eq!(link_local(), "1");
    rig.ok(&["set", "101", "--ipadd", B4, "--ipadd", A6, "--save"]);
    both("with IPv6");
    rig.ok(&["set", "101", "--ipdel", A4, "--ipdel", A6, "--save"]);
    both("after addresses came and went");
    rig.kill_vzd();
    rig.vzctl(&["exec", "101", "reboot"]);
    rig.wait_record(101, Duration::from_secs(20), |r| r.boots == 2);
    rig.start_vzd(&[]);
    let there = wait::retry(SOON, Duration::from_millis(50), || (link_local() == "1").then_some(()));
    assert!(there.is_some(), "no link-local address after a reboot inside");
    both("after a reboot inside and a new vzd");
    // A machine whose cable is out: then both loopbacks are found, too.
    rig.ok(&["set", "101", "--ipdel", "all", "--save"]);
    both("without any address");
    assert_eq!(link_local(), "0");
}

#[test]
fn link_local_traffic_of_a_container_reaches_neither_host_nor_neighbour() {
    let rig = two();
    let (a, b) = (ct_net(&rig, 101), ct_net(&rig, 102));
    let index = |net: &NetNs, link: &str| -> u32 {
        let shown = net.ip(&format!("-o link show {link}")).stdout;
        shown.split(':').next().unwrap().parse().unwrap()
    };
    let inside = index(&a, "venet0");
    let port = 9;
    let receivers = [&rig.host, &b].map(|net| {
        let socket = net.inside(|| UdpSocket::bind((std::net::Ipv6Addr::UNSPECIFIED, port))).unwrap();
        socket.set_read_timeout(Some(NEVER)).unwrap();
        socket
    });
    let send = |source: &str, target: &str| {
        let to = |text: &str, port, scope| std::net::SocketAddrV6::new(text.parse().unwrap(), port, 0, scope);
        a.inside(|| {
            let socket = UdpSocket::bind(to(source, 0, if source.starts_with("fe80") { inside } else { 0 })).unwrap();
            // What nobody can be asked for is refused on the spot, and gets nowhere either.
            let _ = socket.send_to(b"x", to(target, port, inside));
        });
    };
    // The host is reached with an address of the container's own, so that a silence below means the filter.
    send(A6, "fe80::1");
    let mut buffer = [0; 16];
    assert_eq!(receivers[0].recv_from(&mut buffer).unwrap().1.ip(), A6.parse::<IpAddr>().unwrap());
    // Who answers the host's end from any address answers with one the filter knows.
    send("::", "fe80::1");
    assert_eq!(receivers[0].recv_from(&mut buffer).unwrap().1.ip(), A6.parse::<IpAddr>().unwrap());
    let own = a.ip("-6 -o addr show venet0 scope link").stdout;
    let own = own.split_whitespace().nth(3).unwrap().split('/').next().unwrap();
    for target in ["fe80::1", "fe80::2", "ff02::1", B6] {
        send(own, target);
    }
    for socket in receivers {
        match socket.recv_from(&mut buffer) {
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            other => panic!("a link-local packet got through: {other:?}"),
        }
    }
}
