//! What is declared once and read by many: the lists of steps.

use crate::ops::{points, rows};
use std::collections::BTreeSet;
use vz_types::OpKind;

#[test]
fn names_of_steps_are_unique_within_an_operation_and_so_are_fault_points() {
    for row in rows() {
        let names = (row.steps)();
        let unique: BTreeSet<&str> = names.iter().copied().collect();
        assert!(!names.is_empty(), "{} has no steps", row.kind);
        assert_eq!(unique.len(), names.len(), "{}: {names:?}", row.kind);
        let plain = |n: &&&str| n.chars().all(|c| c.is_ascii_lowercase() || c == '-') && !n.is_empty();
        assert_eq!(names.iter().filter(plain).count(), names.len(), "{}: {names:?}", row.kind);
    }
    let points = points();
    let unique: BTreeSet<&String> = points.iter().collect();
    assert_eq!(unique.len(), points.len(), "{points:?}");
}

#[test]
fn every_kind_of_operation_has_its_row_once() {
    let kinds: Vec<OpKind> = rows().iter().map(|row| row.kind).collect();
    for kind in OpKind::ALL {
        // The boot of the host is planned anew, and not gone on with.
        let wanted = usize::from(*kind != OpKind::Onboot);
        assert_eq!(kinds.iter().filter(|k| *k == kind).count(), wanted, "{kind}");
    }
}
