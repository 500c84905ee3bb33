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
