//! Our nft tables: which addresses may come from which link, and masquerading. Written as JSON through the
//! nft program, one atomic batch per change; only tables of our own name are ever read or changed.
//!
//! ```text
//! inet <table>   guard        prerouting, raw: from one of our links? -> from_ct
//!                from_ct      things no container may say; (link, source) in allowed4/6, or drop
//!                masquerade   postrouting, srcnat: not to our links; ours, private, not on-link -> masquerade
//! arp <table>    guard        input: from one of our links -> drop (they have no ARP)
//! ```
//! `allowed*` hold (link . address), `own*` the addresses alone, for masquerading.

use super::{NetworkError, Subnet};
use crate::program;
use nftables::schema::Nftables;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    process::Command,
    time::Duration,
};
use vz_types::{CtAddr, Ctid, Paths};

/// No batch of ours takes a tenth of this.
const DEADLINE: Duration = Duration::from_secs(20);

/// Who may use which addresses.
pub(super) type Allowed = BTreeMap<Ctid, BTreeSet<CtAddr>>;

/// What a manager's tables are made from, besides the addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Shape {
    /// Sources that leave under the host's address.
    pub masquerade: Vec<Subnet>,
    /// Subnets on the uplinks: containers in them are neighbours of everybody there, so they keep their own.
    pub direct: Vec<Subnet>,
}

/// One manager's tables.
#[derive(Debug)]
pub(super) struct Tables {
    name: String,
    paths: Paths,
}

impl Tables {
    pub(super) fn new(paths: &Paths) -> Self {
        Self { name: paths.nft_table(), paths: paths.clone() }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Wildcards for our links and nobody else's. A CTID never begins with 0, and the host's own manager must
    /// not match `vzabc101` of another one.
    fn wildcards(&self) -> Vec<String> {
        (1..=9).map(|digit| format!("{}{digit}*", self.paths.link_prefix())).collect()
    }

    /// Replaces both tables in one transaction: before it the old rules hold, after it the new ones.
    pub(super) fn replace(&self, shape: &Shape, allowed: &Allowed) -> Result<(), NetworkError> {
        run(&self.batch(shape, allowed))
    }

    fn batch(&self, shape: &Shape, allowed: &Allowed) -> Value {
        let mut batch = Vec::new();
        for family in ["inet", "arp"] {
            // Adding what exists is no error, so the deletion never meets nothing.
            batch.push(json!({"add": {"table": self.table(family)}}));
            batch.push(json!({"delete": {"table": self.table(family)}}));
            batch.push(json!({"add": {"table": self.table(family)}}));
        }
        for set in SETS {
            let kind = if set.linked { json!(["ifname", set.kind]) } else { json!(set.kind) };
            let elements = self.elements(set, allowed.iter().flat_map(|(c, all)| all.iter().map(move |a| (*c, *a))));
            let mut object = json!({"family": "inet", "table": self.name, "name": set.name, "type": kind});
            if !elements.is_empty() {
                object["elem"] = Value::Array(elements);
            }
            batch.push(json!({"add": {"set": object}}));
        }
        batch.push(self.chain("inet", "from_ct", None));
        batch.push(self.chain("inet", "guard", Some(("filter", "prerouting", -300))));
        batch.push(self.chain("inet", "masquerade", Some(("nat", "postrouting", 100))));
        batch.push(self.chain("arp", "guard", Some(("filter", "input", 0))));
        // Everybody else's packets pass with one comparison.
        let prefix = json!(format!("{}*", self.paths.link_prefix()));
        let others = json!({"match": {"op": "!=", "left": {"meta": {"key": "iifname"}}, "right": prefix}});
        batch.push(self.rule("inet", "guard", vec![others, json!({"return": null})]));
        for link in self.wildcards() {
            let ours = matches(json!({"meta": {"key": "iifname"}}), json!(link));
            batch.push(self.rule("inet", "guard", vec![ours.clone(), json!({"jump": {"target": "from_ct"}})]));
            batch.push(self.rule("arp", "guard", vec![ours, json!({"drop": null})]));
        }
        for unwanted in never_from_a_ct() {
            batch.push(self.rule("inet", "from_ct", unwanted));
        }
        for (protocol, set) in [("ip", "@allowed4"), ("ip6", "@allowed6")] {
            let source = json!({"concat": [{"meta": {"key": "iifname"}}, field(protocol, "saddr")]});
            batch.push(self.rule("inet", "from_ct", vec![matches(source, json!(set)), json!({"return": null})]));
        }
        batch.push(self.rule("inet", "from_ct", vec![json!({"drop": null})]));
        batch.extend(self.masquerading(shape));
        json!({"nftables": batch})
    }

    fn masquerading(&self, shape: &Shape) -> Vec<Value> {
        let mut rules = Vec::new();
        let mut rule = |expr| rules.push(self.rule("inet", "masquerade", expr));
        for link in self.wildcards().into_iter().chain(["lo".to_owned()]) {
            rule(vec![matches(json!({"meta": {"key": "oifname"}}), json!(link)), json!({"return": null})]);
        }
        let of = |s: &Subnet| match s.ip {
            IpAddr::V4(_) => ("ip", "@own4"),
            IpAddr::V6(_) => ("ip6", "@own6"),
        };
        let prefix = |s: &Subnet| json!({"prefix": {"addr": s.ip.to_string(), "len": s.len}});
        for direct in &shape.direct {
            rule(vec![matches(field(of(direct).0, "saddr"), prefix(direct)), json!({"return": null})]);
        }
        for private in &shape.masquerade {
            let (protocol, own) = of(private);
            rule(vec![
                matches(field(protocol, "saddr"), prefix(private)),
                matches(field(protocol, "saddr"), json!(own)),
                json!({"masquerade": null}),
            ]);
        }
        rules
    }

    /// Adds addresses to the sets.
    pub(super) fn add(&self, ctid: Ctid, addresses: &[CtAddr]) -> Result<(), NetworkError> {
        run(&json!({"nftables": self.element_commands("add", ctid, addresses)}))
    }

    /// Takes addresses out of the sets; those that are not in them do no harm.
    pub(super) fn remove(&self, ctid: Ctid, addresses: &[CtAddr]) -> Result<(), NetworkError> {
        let mut batch = self.element_commands("add", ctid, addresses);
        batch.extend(self.element_commands("delete", ctid, addresses));
        run(&json!({"nftables": batch}))
    }

    fn element_commands(&self, command: &str, ctid: Ctid, addresses: &[CtAddr]) -> Vec<Value> {
        SETS.iter()
            .filter_map(|set| {
                let elements = self.elements(set, addresses.iter().map(|a| (ctid, *a)));
                let element = json!({"family": "inet", "table": self.name, "name": set.name, "elem": elements});
                (!elements.is_empty()).then(|| json!({command: {"element": element}}))
            })
            .collect()
    }

    fn elements(&self, set: &Set, all: impl Iterator<Item = (Ctid, CtAddr)>) -> Vec<Value> {
        all.filter(|(_, a)| a.ip().is_ipv4() == set.v4)
            .map(|(ctid, a)| match set.linked {
                true => json!({"concat": [self.paths.link(ctid), a.to_string()]}),
                false => json!(a.to_string()),
            })
            .collect()
    }

    /// Removes both tables; used when a manager gives up its host for good.
    pub(super) fn delete(&self) -> Result<(), NetworkError> {
        let batch: Vec<Value> = ["inet", "arp"]
            .iter()
            .flat_map(|f| [json!({"add": {"table": self.table(f)}}), json!({"delete": {"table": self.table(f)}})])
            .collect();
        run(&json!({"nftables": batch}))
    }

    /// What is in the kernel now; `None` when a table is missing. Elements are sorted into their sets, the rest
    /// is one text without handles, the same for the same rules.
    pub(super) fn read(&self) -> Result<Option<Reading>, NetworkError> {
        let mut reading = Reading::default();
        for family in ["inet", "arp"] {
            let Some(text) = list(family, &self.name)? else { return Ok(None) };
            let all: Value =
                serde_json::from_str(&text).map_err(|e| said("list table", format!("unreadable answer: {e}")))?;
            for object in all["nftables"].as_array().into_iter().flatten() {
                let Some((kind, body)) = object.as_object().and_then(|o| o.iter().next()) else { continue };
                let mut body = body.clone();
                if let Some(map) = body.as_object_mut() {
                    map.remove("handle");
                    if let ("set", Some(elements)) = (kind.as_str(), map.remove("elem")) {
                        let name = map.get("name").and_then(Value::as_str).unwrap_or_default();
                        let texts = elements.as_array().into_iter().flatten().map(element_text).collect();
                        reading.elements.insert(name.to_owned(), texts);
                    }
                }
                if kind != "metainfo" {
                    reading.rules.push_str(&format!("{kind} {body}\n"));
                }
            }
        }
        Ok(Some(reading))
    }

    /// Do the sets hold exactly these addresses?
    pub(super) fn holds(&self, reading: &Reading, allowed: &Allowed) -> bool {
        SETS.iter().all(|set| {
            let pairs = allowed.iter().flat_map(|(c, all)| all.iter().map(move |a| (*c, *a)));
            let wanted: BTreeSet<String> = self.elements(set, pairs).iter().map(element_text).collect();
            reading.elements.get(set.name).map_or(wanted.is_empty(), |have| *have == wanted)
        })
    }

    fn table(&self, family: &str) -> Value {
        json!({"family": family, "name": self.name})
    }

    fn chain(&self, family: &str, name: &str, base: Option<(&str, &str, i32)>) -> Value {
        let mut chain = json!({"family": family, "table": self.name, "name": name});
        if let Some((kind, hook, priority)) = base {
            chain["type"] = json!(kind);
            chain["hook"] = json!(hook);
            chain["prio"] = json!(priority);
            chain["policy"] = json!("accept");
        }
        json!({"add": {"chain": chain}})
    }

    fn rule(&self, family: &str, chain: &str, expr: Vec<Value>) -> Value {
        json!({"add": {"rule": {"family": family, "table": self.name, "chain": chain, "expr": expr}}})
    }
}

/// Tables as they were found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Reading {
    pub rules: String,
    elements: BTreeMap<String, BTreeSet<String>>,
}

fn element_text(element: &Value) -> String {
    match element.get("concat").and_then(Value::as_array) {
        Some(parts) => parts.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" "),
        None => element.as_str().unwrap_or_default().to_owned(),
    }
}

struct Set {
    name: &'static str,
    kind: &'static str,
    v4: bool,
    linked: bool,
}

const SETS: &[Set] = &[
    Set { name: "allowed4", kind: "ipv4_addr", v4: true, linked: true },
    Set { name: "allowed6", kind: "ipv6_addr", v4: false, linked: true },
    Set { name: "own4", kind: "ipv4_addr", v4: true, linked: false },
    Set { name: "own6", kind: "ipv6_addr", v4: false, linked: false },
];

fn matches(left: Value, right: Value) -> Value {
    json!({"match": {"op": "==", "left": left, "right": right}})
}

fn field(protocol: &str, field: &str) -> Value {
    json!({"payload": {"protocol": protocol, "field": field}})
}

/// What is dropped although its source is the container's own: a container is no router and hands out no
/// addresses, and its link has no neighbours to discover.
fn never_from_a_ct() -> Vec<Vec<Value>> {
    let drop = || json!({"drop": null});
    let ports = |from: u16, to: u16| {
        vec![matches(field("udp", "sport"), json!(from)), matches(field("udp", "dport"), json!(to)), drop()]
    };
    let discovery = json!({"set": ["nd-router-advert", "nd-neighbor-solicit", "nd-neighbor-advert", "nd-redirect"]});
    vec![
        ports(67, 68),
        ports(547, 546),
        vec![matches(field("icmp", "type"), json!("redirect")), drop()],
        vec![matches(field("icmpv6", "type"), discovery), drop()],
    ]
}

fn said(what: &'static str, said: impl Into<String>) -> NetworkError {
    NetworkError::Nft { what, said: said.into() }
}

fn nft() -> Result<Command, NetworkError> {
    let file = program::find("nft").ok_or(NetworkError::MissingProgram { program: "nft", package: "nftables" })?;
    Ok(program::command(&file))
}

/// Applies a batch, all of it or nothing.
fn run(batch: &Value) -> Result<(), NetworkError> {
    // Through the crate's types: a batch they don't accept is a bug of ours and never reaches the kernel.
    let typed: Nftables<'_> =
        serde_json::from_value(batch.clone()).map_err(|e| said("build a batch", e.to_string()))?;
    let text = serde_json::to_vec(&typed).map_err(|e| said("build a batch", e.to_string()))?;
    let mut command = nft()?;
    command.args(["-j", "-f", "-"]);
    let (status, (_, err)) = program::output(command, Some(text), DEADLINE).map_err(|source| NetworkError::Io {
        what: "run",
        on: "nft".into(),
        source,
    })?;
    match status {
        Some(s) if s.success() => Ok(()),
        Some(_) => Err(said("change our table", first_line(&err))),
        None => Err(said("change our table", format!("no end after {} s, so it was killed", DEADLINE.as_secs()))),
    }
}

/// The JSON of one table; `None` when there is none.
fn list(family: &str, table: &str) -> Result<Option<String>, NetworkError> {
    let mut command = nft()?;
    command.args(["-j", "list", "table", family, table]);
    let (status, (out, err)) = program::output(command, None, DEADLINE).map_err(|source| NetworkError::Io {
        what: "run",
        on: "nft".into(),
        source,
    })?;
    match status {
        Some(s) if s.success() => Ok(Some(String::from_utf8_lossy(&out).into_owned())),
        Some(_) if String::from_utf8_lossy(&err).contains("No such file or directory") => Ok(None),
        Some(_) => Err(said("list our table", first_line(&err))),
        None => Err(said("list our table", format!("no end after {} s, so it was killed", DEADLINE.as_secs()))),
    }
}

fn first_line(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).lines().find(|l| !l.trim().is_empty()).unwrap_or("no reason given").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_own_manager_matches_no_link_of_another() {
        let own = Tables::new(&Paths::new("/")).wildcards();
        let other = Paths::new("/tmp/other").link(101.try_into().unwrap());
        assert!(own.iter().all(|w| !other.starts_with(w.trim_end_matches('*'))));
        assert!(own.iter().any(|w| "vz101".starts_with(w.trim_end_matches('*'))));
    }

    #[test]
    fn a_batch_is_what_the_nftables_crate_understands() {
        let shape = Shape {
            masquerade: vec!["10.0.0.0/8".parse().unwrap(), "fc00::/7".parse().unwrap()],
            direct: vec!["10.1.0.0/24".parse().unwrap()],
        };
        let allowed = Allowed::from([(
            101.try_into().unwrap(),
            BTreeSet::from(["10.0.0.2".parse().unwrap(), "fd00::2".parse().unwrap()]),
        )]);
        let batch = Tables::new(&Paths::new("/tmp/x")).batch(&shape, &allowed);
        let typed: Nftables<'_> = serde_json::from_value(batch.clone()).unwrap();
        assert_eq!(serde_json::to_value(&typed).unwrap(), batch);
    }
}
