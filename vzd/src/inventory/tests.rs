//! The inventory against a real database file.

use super::*;
use vz_types::{OpId, OpKind, OpState, Subject};

fn open() -> (tempfile::TempDir, Inventory) {
    let dir = tempfile::tempdir().unwrap();
    let inv = Inventory::open(&dir.path().join("inventory.db"), &dir.path().join("private")).unwrap();
    (dir, inv)
}

fn new(n: u32, name: &str, ip: &str) -> NewCt {
    NewCt {
        ctid: n.try_into().unwrap(),
        uuid: format!("uuid-{n}"),
        name: Some(name.parse().unwrap()),
        first_slot: UidBase::SLOTS - 1,
        avoid: Vec::new(),
        template: "debian-12".parse().unwrap(),
        template_digest: "d".into(),
        layout: Layout::Overlay,
        addresses: vec![ip.parse().unwrap()],
    }
}

/// An operation on a container, as it is written down when it begins or ends.
fn operation(ctid: Ctid, kind: OpKind, ended: Option<u64>) -> OperationRow {
    OperationRow {
        id: OpId::new(u64::from(ctid.get()), [0; 10]),
        kind,
        subject: Subject::Ct(ctid),
        asker: "uid 0".into(),
        state: if ended.is_some() { OpState::Done } else { OpState::Running },
        step: "claim".into(),
        note: "{}".into(),
        told: "{}".into(),
        error: None,
        asked: 1,
        begun: Some(1),
        ended,
        count: 1,
    }
}

/// Claims, and writes the operation down that does.
fn create(inv: &Inventory, new: &NewCt) -> Result<CtRow> {
    inv.change("creating", true, |c| {
        let row = c.claim_create(new)?;
        c.operation(&operation(new.ctid, OpKind::Create, None))?;
        Ok(row)
    })
}

fn end(inv: &Inventory, ctid: Ctid, kind: OpKind) {
    inv.change("ending", false, |c| c.operation(&operation(ctid, kind, Some(2)))).unwrap();
}

fn open_operations(inv: &Inventory) -> Vec<OperationRow> {
    inv.open_operations().unwrap().into_iter().map(|row| row.unwrap()).collect()
}

#[test]
fn a_refused_claim_changes_nothing() {
    let (_dir, inv) = open();
    create(&inv, &new(101, "web", "10.0.0.2")).unwrap();
    assert!(matches!(create(&inv, &new(101, "other", "10.0.0.3")), Err(Error::Exists(_))));
    assert!(matches!(create(&inv, &new(102, "web", "10.0.0.3")), Err(Error::NameTaken { .. })));
    assert!(matches!(create(&inv, &new(102, "db", "10.0.0.2")), Err(Error::AddressTaken { .. })));
    assert_eq!(inv.containers().unwrap().len(), 1);
    assert_eq!(open_operations(&inv).len(), 1);
    let b = create(&inv, &new(102, "db", "10.0.0.3")).unwrap();
    assert_eq!(b.uid_base, UidBase::from_slot(0), "the search wraps");
}

#[test]
fn forgetting_gives_everything_back() {
    let (_dir, inv) = open();
    let a = create(&inv, &new(101, "web", "10.0.0.2")).unwrap();
    inv.change("forgetting", true, |c| {
        c.forget(a.ctid)?;
        c.operation(&operation(a.ctid, OpKind::Create, Some(2)))
    })
    .unwrap();
    assert!(open_operations(&inv).is_empty());
    let again = create(&inv, &new(102, "web", "10.0.0.2")).unwrap();
    assert_eq!(again.uid_base, a.uid_base);
}

#[test]
fn settling_keeps_saved_and_unsaved_addresses_apart() {
    let (_dir, inv) = open();
    let a = create(&inv, &new(101, "web", "10.0.0.2")).unwrap().ctid;
    end(&inv, a, OpKind::Create);
    let (x, y) = ("10.0.0.2".parse().unwrap(), "10.0.0.9".parse().unwrap());
    inv.change("claiming", true, |c| c.claim_set(a, None, &[x, y])).unwrap();
    inv.change("settling", true, |c| c.settle(a, None, &[x], &[y])).unwrap();
    assert_eq!(inv.addresses(a).unwrap(), vec![(x, true), (y, false)]);
    assert_eq!(inv.container(a).unwrap().unwrap().name, None);
}

#[test]
fn a_missing_or_damaged_inventory_is_an_error_that_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let (db, private) = (dir.path().join("inventory.db"), dir.path().join("private"));
    std::fs::create_dir_all(private.join("101")).unwrap();
    assert!(matches!(Inventory::open(&db, &private), Err(Error::Missing { .. })));
    std::fs::write(&db, vec![b'x'; 8192]).unwrap();
    let e = Inventory::open(&db, &private).unwrap_err();
    assert!(matches!(e, Error::Damaged { .. }) && e.hint().unwrap().contains("recover"), "{e}");
}

#[derive(Clone, Debug)]
enum Act {
    Create { ct: u8, ip: u8, name: u8 },
    Set { ct: u8, ip: u8, name: u8, saved: bool },
    Forget { ct: u8 },
}

fn act() -> impl proptest::strategy::Strategy<Value = Act> {
    use proptest::prelude::*;
    prop_oneof![
        (0..6u8, 0..6u8, 0..6u8).prop_map(|(ct, ip, name)| Act::Create { ct, ip, name }),
        (0..6u8, 0..6u8, 0..6u8, any::<bool>()).prop_map(|(ct, ip, name, saved)| Act::Set { ct, ip, name, saved }),
        (0..6u8).prop_map(|ct| Act::Forget { ct }),
    ]
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(24))]
    /// Whatever is asked in whatever order: no two containers share a uid range, a name or an address,
    /// and a refusal changes nothing.
    #[test]
    fn claims_never_overlap(acts in proptest::collection::vec(act(), 1..25)) {
        let (_dir, inv) = open();
        let ip = |n: u8| format!("10.0.0.{}", n + 1).parse::<CtAddr>().unwrap();
        let name = |n: u8| format!("n{n}").parse::<CtName>().unwrap();
        for a in acts {
            let before = (inv.containers().unwrap(), open_operations(&inv));
            let done = match a {
                Act::Create { ct, ip: i, name: n } => {
                    let spec = new(101 + u32::from(ct), name(n).as_str(), &ip(i).to_string());
                    create(&inv, &spec).map(|row| end(&inv, row.ctid, OpKind::Create))
                }
                Act::Set { ct, ip: i, name: n, saved } => {
                    let ctid = Ctid::try_from(101 + u32::from(ct)).unwrap();
                    if inv.container(ctid).unwrap().is_none() { continue }
                    let ips = [ip(i)];
                    let (s, u): (&[CtAddr], &[CtAddr]) = if saved { (&ips, &[]) } else { (&[], &ips) };
                    inv.change("claiming", true, |c| {
                        c.claim_set(ctid, Some(&name(n)), &ips)?;
                        c.operation(&operation(ctid, OpKind::Set, None))
                    })
                    .and_then(|()| {
                        inv.change("settling", false, |c| {
                            c.settle(ctid, Some(&name(n)), s, u)?;
                            c.operation(&operation(ctid, OpKind::Set, Some(2)))
                        })
                    })
                }
                Act::Forget { ct } => {
                    let ctid = Ctid::try_from(101 + u32::from(ct)).unwrap();
                    inv.change("forgetting", false, |c| c.forget(ctid))
                }
            };
            if done.is_err() {
                proptest::prop_assert_eq!(&before, &(inv.containers().unwrap(), open_operations(&inv)));
            }
            let rows = inv.containers().unwrap();
            let mut bases: Vec<_> = rows.iter().map(|r| r.uid_base).collect();
            let mut ips: Vec<_> = rows.iter().flat_map(|r| inv.addresses(r.ctid).unwrap()).map(|(ip, _)| ip).collect();
            let count = (bases.len(), ips.len());
            bases.sort();
            bases.dedup();
            ips.sort();
            ips.dedup();
            proptest::prop_assert_eq!(count, (bases.len(), ips.len()));
            proptest::prop_assert!(open_operations(&inv).is_empty());
        }
    }
}

#[test]
fn an_inventory_of_a_later_version_is_refused_as_such_and_left_alone() {
    let (dir, inv) = open();
    create(&inv, &new(101, "web", "10.0.0.2")).unwrap();
    inv.db().pragma_update(None, "user_version", 4711).unwrap();
    drop(inv);
    let file = dir.path().join("inventory.db");
    let refusal = Inventory::open(&file, &dir.path().join("private")).unwrap_err();
    assert!(matches!(refusal, Error::Newer { there: 4711, .. }), "{refusal:?}");
    assert!(refusal.to_string().contains("later version") && refusal.hint().is_some_and(|h| h.contains("install")));
    let db = Connection::open(&file).unwrap();
    assert_eq!(db.query_row("SELECT count(*) FROM container", [], |r| r.get::<_, i64>(0)).unwrap(), 1);
    assert_eq!(db.query_row("PRAGMA user_version", [], |r| r.get::<_, i64>(0)).unwrap(), 4711);
}

fn refusal(n: u64, name: &str, at: u64) -> OperationRow {
    OperationRow {
        id: OpId::new(n, [7; 10]),
        subject: Subject::Ct(name.parse().unwrap()),
        state: OpState::Failed,
        error: Some(format!("error {n}")),
        asked: at,
        begun: None,
        ended: Some(at),
        ..operation(101.try_into().unwrap(), OpKind::Start, None)
    }
}

#[test]
fn the_same_refusal_counts_up_and_others_have_rows_of_their_own() {
    let (_dir, inv) = open();
    let hour = 3_600_000;
    let refuse = |row: &OperationRow, cause: &str, kept| {
        inv.change("test", false, |c| c.refused(row, cause, kept)).unwrap();
    };
    for n in 0..5 {
        refuse(&refusal(n, "101", 10 * hour + n), "busy", false);
    }
    refuse(&refusal(5, "101", 10 * hour + 5), "disabled", false);
    refuse(&OperationRow { asker: "uid 7".into(), ..refusal(6, "101", 10 * hour + 6) }, "busy", false);
    refuse(&refusal(7, "102", 10 * hour + 7), "busy", false);
    refuse(&refusal(8, "101", 12 * hour), "busy", false);
    // One that its client was told to wait for has its own number, and is found under it.
    refuse(&refusal(9, "101", 12 * hour + 1), "busy", true);
    let mut all = inv.operations(&Wanted::default()).unwrap();
    all.reverse();
    let counts: Vec<(u64, u64, &str)> =
        all.iter().map(|o| (o.id.millis(), o.count, o.error.as_deref().unwrap())).collect();
    let one = |n, error| (n, 1, error);
    assert_eq!(
        counts,
        [
            (0, 5, "error 4"),
            one(5, "error 5"),
            one(6, "error 6"),
            one(7, "error 7"),
            one(8, "error 8"),
            one(9, "error 9")
        ]
    );
    assert_eq!((all[0].asked, all[0].ended), (10 * hour, Some(10 * hour + 4)), "the first and the last time");
}

#[test]
fn refusals_are_bounded_however_they_differ_and_take_nothing_else_with_them() {
    let (_dir, inv) = open();
    let done = operation(101.try_into().unwrap(), OpKind::Create, Some(2));
    inv.change("test", false, |c| c.operation(&done)).unwrap();
    inv.change("test", false, |c| {
        (0..5000).try_for_each(|n| {
            let row = refusal(n, &(101 + n / 1000).to_string(), 1000 + n);
            c.refused(&row, &format!("cause {n}"), n % 2 == 0)
        })?;
        // Of all numbers there are.
        (0..5000)
            .try_for_each(|n| c.refused(&refusal(10_000 + n, &(1000 + n).to_string(), 10_000 + n), "absent", false))
    })
    .unwrap();
    let of = |n: u32| {
        let subject = Some(Subject::Ct(n.try_into().unwrap()));
        inv.operations(&Wanted { subject, most: 10_000, ..Wanted::default() }).unwrap()
    };
    assert_eq!(inv.operations(&Wanted { most: 10_000, ..Wanted::default() }).unwrap().len(), 2001);
    assert_eq!(of(101), [done], "what was done stays");
    assert_eq!(of(5999).len(), 1, "the newest stay");
}

#[test]
fn what_is_open_is_listed_whatever_its_state() {
    let (_dir, inv) = open();
    let row = |n: u64, state, ended| OperationRow {
        id: OpId::new(n, [0; 10]),
        state,
        ..operation(101.try_into().unwrap(), OpKind::Stop, ended)
    };
    let all = [
        row(1, OpState::Failed, None),
        row(2, OpState::Running, None),
        row(3, OpState::Failed, Some(9)),
        row(4, OpState::Done, Some(9)),
    ];
    inv.change("test", false, |c| all.iter().try_for_each(|o| c.operation(o))).unwrap();
    let ids = |states: &[OpState], open| -> Vec<u64> {
        let wanted = Wanted { states: states.to_vec(), open, ..Wanted::default() };
        inv.operations(&wanted).unwrap().iter().rev().map(|o| o.id.millis()).collect()
    };
    assert_eq!(ids(&[], true), [1, 2]);
    assert_eq!(ids(&[OpState::Done], true), [1, 2, 4]);
    assert_eq!(ids(&[OpState::Failed], false), [1, 3]);
    assert_eq!(ids(&[], false), [1, 2, 3, 4]);
}
