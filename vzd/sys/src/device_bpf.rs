//! The device program of a container's cgroup: deny everything, allow a list. A `BPF_PROG_TYPE_CGROUP_DEVICE`
//! program of a few dozen instructions, written here by hand because it is a straight list of compares.
//! Format: kernel Documentation/bpf/standardization/instruction-set.rst; context `struct bpf_cgroup_dev_ctx`
//! { access_type: u32 (access << 16 | type), major: u32, minor: u32 }, type 2 = character device.

use crate::bpf::{self, Hook, Insn, insn};
use rustix::fd::BorrowedFd;
use std::io;

const LDX_W: u8 = 0x61;
const AND32_K: u8 = 0x54;
const JNE_K: u8 = 0x55;
const MOV_K: u8 = 0xb7;
const EXIT: u8 = 0x95;

/// `BPF_DEVCG_DEV_CHAR` (linux/bpf.h).
const CHAR: i32 = 2;

/// A device rule: character device `major`, and one minor or all of them.
pub type Rule = (u32, Option<u32>);

/// r2 = type, r4 = major, r5 = minor; each rule falls through to "allow" or jumps to the next; the end denies.
fn assemble(rules: &[Rule]) -> Vec<Insn> {
    let mut p = vec![
        insn(LDX_W, 2, 1, 0, 0),
        insn(AND32_K, 2, 0, 0, 0xffff),
        insn(LDX_W, 4, 1, 4, 0),
        insn(LDX_W, 5, 1, 8, 0),
        insn(JNE_K, 2, 0, 0, CHAR),
    ];
    let char_test = p.len() - 1;
    for (major, minor) in rules {
        match minor {
            Some(minor) => {
                p.push(insn(JNE_K, 4, 0, 3, *major as i32));
                p.push(insn(JNE_K, 5, 0, 2, *minor as i32));
            }
            None => p.push(insn(JNE_K, 4, 0, 2, *major as i32)),
        }
        p.push(insn(MOV_K, 0, 0, 0, 1));
        p.push(insn(EXIT, 0, 0, 0, 0));
    }
    p[char_test].off = (p.len() - char_test - 1) as i16;
    p.push(insn(MOV_K, 0, 0, 0, 0));
    p.push(insn(EXIT, 0, 0, 0, 0));
    p
}

/// Attaches "these character devices and nothing else" to a cgroup2 directory, for it and everything below.
/// It goes away with the cgroup. Programs attached below can only narrow it (both must allow).
///
/// # Errors
/// What bpf(2) says: `EPERM` without CAP_BPF or CAP_SYS_ADMIN, `EINVAL` on a kernel without CONFIG_CGROUP_BPF.
pub fn attach(cgroup: BorrowedFd<'_>, rules: &[Rule]) -> io::Result<()> {
    let program = bpf::load(Hook::DEVICE, &assemble(rules))?;
    bpf::attach(cgroup, Hook::DEVICE, &program)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_jump_lands_inside_the_program() {
        let p = assemble(&[(1, Some(3)), (136, None)]);
        for (i, insn) in p.iter().enumerate() {
            if insn.code == JNE_K {
                assert!(i + 1 + insn.off as usize <= p.len() - 2, "instruction {i}");
            }
        }
        assert_eq!(&p[p.len() - 2..], &[insn(MOV_K, 0, 0, 0, 0), insn(EXIT, 0, 0, 0, 0)]);
    }
}
