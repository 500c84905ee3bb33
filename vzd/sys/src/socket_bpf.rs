//! Programs that count and limit a container's inet sockets, and keep root inside from raising limits that live in
//! /proc/sys.
//!
//! ```text
//!  socket(2) ----> create: held+1 > limit? refuse, fails+1 : mark it, held+1
//!  accept ------> sock_ops, passive established: mark it, held+1
//!  close -------> release, and sock_ops, state CLOSE: unmark it, held-1 (once, whichever comes first)
//!  SYN ---------> ingress: held >= limit? drop, fails+1
//! ```
//! The mark is a word in the socket itself, so none is counted twice, every count is taken back exactly once, and a
//! container costs no table. A connection whose handshake is under way when the limit is reached is let in and counted.

use crate::bpf::{self, Asm, Hook, Insn, helper, op};
use rustix::fd::{BorrowedFd, OwnedFd};
use std::io;

/// Index of TCP in both maps; everything else is 1.
pub const TCP: u32 = 0;
/// Index of every other inet socket.
pub const OTHER: u32 = 1;

/// What is counted of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Sockets there are.
    pub held: u64,
    /// At most.
    pub peak: u64,
    /// Refused.
    pub fails: u64,
}

/// The maps behind the programs of one cgroup.
#[derive(Debug)]
pub struct Sockets {
    limits: OwnedFd,
    counts: OwnedFd,
}

const COUNTS: u32 = 24;
const LIMITS: u32 = 8;

impl Sockets {
    /// Attaches the counting programs to a cgroup in which nothing runs yet. No limit holds before [`Sockets::limit`].
    ///
    /// # Errors
    /// What bpf(2) says.
    pub fn attach(cgroup: BorrowedFd<'_>) -> io::Result<Self> {
        let words = bpf::new_socket_word()?;
        let limits = bpf::new_array(LIMITS, 2)?;
        let counts = bpf::new_array(COUNTS, 2)?;
        for kind in [TCP, OTHER] {
            bpf::write_words(&limits, kind, [u64::MAX])?;
        }
        for (hook, program) in [
            (Hook::SOCK_RELEASE, release(&words, &counts)),
            (Hook::SOCK_OPS, events(&words, &counts)),
            (Hook::INGRESS, ingress(&limits, &counts)),
            (Hook::SOCK_CREATE, create(&words, &limits, &counts)),
        ] {
            let program = bpf::load(hook, &program)?;
            bpf::attach(cgroup, hook, &program)?;
        }
        Ok(Self { limits, counts })
    }

    /// Those attached to a cgroup; `None`: there are none.
    ///
    /// # Errors
    /// What bpf(2) says.
    pub fn find(cgroup: BorrowedFd<'_>) -> io::Result<Option<Self>> {
        let Some(program) = bpf::attached(cgroup, Hook::SOCK_CREATE)? else { return Ok(None) };
        let (mut limits, mut counts) = (None, None);
        for (size, map) in bpf::arrays_of(&program)? {
            match size {
                LIMITS => limits = Some(map),
                COUNTS => counts = Some(map),
                _ => {}
            }
        }
        Ok(limits.zip(counts).map(|(limits, counts)| Self { limits, counts }))
    }

    /// Sets the limit of a kind; `u64::MAX` is none.
    ///
    /// # Errors
    /// What bpf(2) says.
    pub fn limit(&self, kind: u32, limit: u64) -> io::Result<()> {
        bpf::write_words(&self.limits, kind, [limit])
    }

    /// The limit of a kind.
    ///
    /// # Errors
    /// What bpf(2) says.
    pub fn limit_of(&self, kind: u32) -> io::Result<u64> {
        bpf::read_words::<1>(&self.limits, kind).map(|w| w[0])
    }

    /// What is counted of a kind.
    ///
    /// # Errors
    /// What bpf(2) says.
    pub fn counts(&self, kind: u32) -> io::Result<Counts> {
        let [held, peak, fails] = bpf::read_words(&self.counts, kind)?;
        Ok(Counts { held, peak, fails })
    }
}

/// Adds a number to a word of the value that `reg` points to.
fn add(a: &mut Asm, reg: u8, off: i16, n: i32) {
    a.put(op::MOV_K, 1, 0, 0, n).put(op::ATOMIC_DW, reg, 1, off, 0);
}

/// held+1 at r9, its old value in r1; peak follows.
fn take(a: &mut Asm, after: &'static str) {
    a.put(op::ADD_K, 1, 0, 0, 1).put(op::LDX_DW, 2, 9, 8, 0);
    a.jump(op::JGE_X, 2, 1, 0, after).put(op::STX_DW, 9, 1, 8, 0);
}

/// Looks the u32 on the stack at -4 up in an array; r0 is the entry.
fn entry(a: &mut Asm, map: &OwnedFd, otherwise: &'static str) {
    a.map(1, map).stack(2, -4).call(helper::MAP_LOOKUP).jump(op::JEQ_K, 0, 0, 0, otherwise);
}

/// The word of the socket in r1 (which may not be null), with r2 free: r0 is its address. `make`: give it one if it has none.
fn word(a: &mut Asm, words: &OwnedFd, make: bool, otherwise: &'static str) {
    a.put(op::MOV_X, 2, 1, 0, 0).map(1, words).put(op::MOV_K, 3, 0, 0, 0).put(op::MOV_K, 4, 0, 0, i32::from(make));
    a.call(helper::SK_STORAGE_GET).jump(op::JEQ_K, 0, 0, 0, otherwise);
}

/// Exchanges the word at r0 with r1, which then holds its old value.
fn exchange(a: &mut Asm) {
    const XCHG: i32 = 0xe1;
    a.put(op::ATOMIC_DW, 0, 1, 0, XCHG);
}

fn create(words: &OwnedFd, limits: &OwnedFd, counts: &OwnedFd) -> Vec<Insn> {
    let mut a = Asm::default();
    // struct bpf_sock: type at 8; SOCK_STREAM is 1, and an inet stream socket is TCP (or MPTCP).
    a.put(op::MOV_X, 6, 1, 0, 0).put(op::MOV_K, 7, 0, 0, OTHER as i32).put(op::LDX_W, 2, 6, 8, 0);
    a.jump(op::JNE_K, 2, 0, 1, "kind").put(op::MOV_K, 7, 0, 0, TCP as i32);
    a.label("kind").put(op::STX_W, 10, 7, -4, 0);
    entry(&mut a, limits, "allow");
    a.put(op::LDX_DW, 8, 0, 0, 0);
    entry(&mut a, counts, "allow");
    a.put(op::MOV_X, 9, 0, 0, 0);
    // Fetch and add, so that two sockets made at once cannot both be the last.
    a.put(op::MOV_K, 1, 0, 0, 1).put(op::ATOMIC_DW, 9, 1, 0, 1);
    a.jump(op::JGE_X, 1, 8, 0, "refuse");
    take(&mut a, "remember");
    a.label("remember").put(op::MOV_X, 1, 6, 0, 0);
    word(&mut a, words, true, "refuse");
    a.put(op::ADD_K, 7, 0, 0, 1).put(op::STX_DW, 0, 7, 0, 0).jump(op::JA, 0, 0, 0, "allow");
    a.label("refuse");
    add(&mut a, 9, 0, -1);
    add(&mut a, 9, 16, 1);
    a.answer(0);
    a.label("allow").answer(1);
    a.build()
}

/// Takes the socket in r1 out of the count, once: release and the change of state may both come, and only who finds the
/// word set counts.
fn forget(a: &mut Asm, words: &OwnedFd, counts: &OwnedFd) {
    word(a, words, false, "end");
    a.put(op::MOV_K, 1, 0, 0, 0);
    exchange(a);
    a.jump(op::JEQ_K, 1, 0, 0, "end").put(op::ADD_K, 1, 0, 0, -1).put(op::STX_W, 10, 1, -4, 0);
    entry(a, counts, "end");
    a.put(op::MOV_X, 9, 0, 0, 0);
    add(a, 9, 0, -1);
}

fn release(words: &OwnedFd, counts: &OwnedFd) -> Vec<Insn> {
    let mut a = Asm::default();
    forget(&mut a, words, counts);
    a.label("end").answer(1);
    a.build()
}

fn events(words: &OwnedFd, counts: &OwnedFd) -> Vec<Insn> {
    const PASSIVE_ESTABLISHED: i32 = 5;
    const STATE: i32 = 10;
    const STATE_FLAG: i32 = 4;
    const TCP_CLOSE: i32 = 7;
    // struct bpf_sock_ops: the socket, null for one that is not full.
    const SK: i16 = 184;
    let mut a = Asm::default();
    // struct bpf_sock_ops: op at 0, args from 4. What is asked for is not answered here: reply -1.
    a.put(op::MOV_X, 6, 1, 0, 0).put(op::LDX_W, 2, 6, 0, 0).put(op::LDX_W, 3, 6, 8, 0);
    a.jump(op::JEQ_K, 2, 0, PASSIVE_ESTABLISHED, "accepted").jump(op::JEQ_K, 2, 0, STATE, "state");
    a.put(op::MOV_K, 4, 0, 0, -1).put(op::STX_W, 6, 4, 4, 0).jump(op::JA, 0, 0, 0, "end");
    a.label("accepted").put(op::MOV_X, 1, 6, 0, 0).put(op::MOV_K, 2, 0, 0, STATE_FLAG);
    a.call(helper::SOCK_OPS_CB_FLAGS);
    a.put(op::LDX_DW, 1, 6, SK, 0).jump(op::JEQ_K, 1, 0, 0, "end");
    word(&mut a, words, true, "end");
    a.put(op::MOV_K, 1, 0, 0, TCP as i32 + 1);
    exchange(&mut a);
    a.jump(op::JNE_K, 1, 0, 0, "end").put(op::ST_W, 10, 0, -4, TCP as i32);
    entry(&mut a, counts, "end");
    a.put(op::MOV_X, 9, 0, 0, 0).put(op::MOV_K, 1, 0, 0, 1).put(op::ATOMIC_DW, 9, 1, 0, 1);
    take(&mut a, "end");
    a.jump(op::JA, 0, 0, 0, "end");
    a.label("state").jump(op::JNE_K, 3, 0, TCP_CLOSE, "end");
    a.put(op::LDX_DW, 1, 6, SK, 0).jump(op::JEQ_K, 1, 0, 0, "end");
    forget(&mut a, words, counts);
    a.label("end").answer(1);
    a.build()
}

fn ingress(limits: &OwnedFd, counts: &OwnedFd) -> Vec<Insn> {
    // struct __sk_buff: protocol at 16, in network order.
    const IPV4: i32 = 0x0008;
    const IPV6: i32 = 0xdd86;
    const TCP_PROTOCOL: i32 = 6;
    let mut a = Asm::default();
    a.put(op::MOV_X, 6, 1, 0, 0).put(op::ST_W, 10, 0, -4, TCP as i32);
    entry(&mut a, limits, "pass");
    a.put(op::LDX_DW, 8, 0, 0, 0);
    entry(&mut a, counts, "pass");
    a.put(op::MOV_X, 9, 0, 0, 0).put(op::LDX_DW, 1, 9, 0, 0);
    // The way of nearly every packet ends here.
    a.jump(op::JLT_X, 1, 8, 0, "pass");
    let byte = |a: &mut Asm, reg: Option<u8>, at: i32| {
        a.put(op::MOV_X, 1, 6, 0, 0);
        match reg {
            Some(reg) => a.put(op::MOV_X, 2, reg, 0, 0),
            None => a.put(op::MOV_K, 2, 0, 0, at),
        };
        a.stack(3, -8).put(op::MOV_K, 4, 0, 0, 1).call(helper::SKB_LOAD_BYTES);
        a.jump(op::JNE_K, 0, 0, 0, "pass").put(op::LDX_B, 1, 10, -8, 0);
    };
    a.put(op::LDX_W, 2, 6, 16, 0).jump(op::JEQ_K, 2, 0, IPV4, "v4").jump(op::JNE_K, 2, 0, IPV6, "pass");
    byte(&mut a, None, 6);
    a.jump(op::JNE_K, 1, 0, TCP_PROTOCOL, "pass").put(op::MOV_K, 7, 0, 0, 53).jump(op::JA, 0, 0, 0, "flags");
    a.label("v4");
    byte(&mut a, None, 9);
    a.jump(op::JNE_K, 1, 0, TCP_PROTOCOL, "pass");
    byte(&mut a, None, 0);
    // Length of the header in words, then byte 13 of TCP's.
    a.put(op::MOV_X, 7, 1, 0, 0).put(op::AND_K, 7, 0, 0, 15).put(op::LSH_K, 7, 0, 0, 2).put(op::ADD_K, 7, 0, 0, 13);
    a.label("flags");
    byte(&mut a, Some(7), 0);
    // SYN without ACK: somebody wants to connect.
    a.put(op::AND_K, 1, 0, 0, 0x12).jump(op::JNE_K, 1, 0, 0x02, "pass");
    add(&mut a, 9, 16, 1);
    a.answer(0);
    a.label("pass").answer(1);
    a.build()
}

/// Files below /proc/sys that root inside may read and not write, as the kernel names them.
const GUARDED: [&str; 3] = ["net/ipv4/tcp_wmem", "net/ipv4/tcp_rmem", "kernel/shmall"];

/// Keeps processes of a cgroup from writing the parameters that limit their buffers and shared memory. Attached once;
/// repeating it is harmless.
///
/// # Errors
/// What bpf(2) says.
pub fn guard_parameters(cgroup: BorrowedFd<'_>) -> io::Result<()> {
    if bpf::attached(cgroup, Hook::SYSCTL)?.is_some() {
        return Ok(());
    }
    let program = bpf::load(Hook::SYSCTL, &guard())?;
    bpf::attach(cgroup, Hook::SYSCTL, &program)
}

/// Whether [`guard_parameters`] was done.
///
/// # Errors
/// What bpf(2) says.
pub fn guards_parameters(cgroup: BorrowedFd<'_>) -> io::Result<bool> {
    bpf::attached(cgroup, Hook::SYSCTL).map(|p| p.is_some())
}

fn guard() -> Vec<Insn> {
    const BUFFER: i16 = -32;
    const LABELS: [&str; 4] = ["0", "1", "2", "3"];
    let mut a = Asm::default();
    // struct bpf_sysctl: write at 0.
    a.put(op::LDX_W, 2, 1, 0, 0).jump(op::JEQ_K, 2, 0, 0, "3");
    for at in 0..4 {
        a.put(op::ST_DW, 10, 0, BUFFER + 8 * at, 0);
    }
    // Name, length of the buffer, no flags: the whole path below /proc/sys. Longer names are none of ours.
    a.stack(2, BUFFER.into()).put(op::MOV_K, 3, 0, 0, 32).put(op::MOV_K, 4, 0, 0, 0).call(helper::SYSCTL_NAME);
    for (n, name) in GUARDED.iter().enumerate() {
        a.label(LABELS[n]);
        let mut bytes = name.as_bytes().to_vec();
        bytes.push(0);
        let mut at = 0;
        while at < bytes.len() {
            let left = bytes.len() - at;
            let (code, size) = if left >= 8 {
                (op::LDX_DW, 8)
            } else if left >= 2 {
                (op::LDX_H, 2)
            } else {
                (op::LDX_B, 1)
            };
            let mut word = [0u8; 8];
            word[..size].copy_from_slice(&bytes[at..at + size]);
            let word = u64::from_ne_bytes(word);
            a.put(code, 1, 10, BUFFER + at as i16, 0);
            a.put(op::LD_IMM64, 2, 0, 0, word as u32 as i32).put(0, 0, 0, 0, (word >> 32) as u32 as i32);
            a.jump(op::JNE_X, 1, 2, 0, LABELS[n + 1]);
            at += size;
        }
        a.answer(0);
    }
    a.label("3").answer(1);
    a.build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_jump_lands_inside_and_every_program_ends_with_an_answer() {
        let fd = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        let (a, b, c) = (fd(), fd(), fd());
        [create(&a, &b, &c), release(&a, &c), events(&a, &c), ingress(&b, &c), guard()]
            .iter()
            .for_each(|p| bpf::assert_well_formed(p));
    }
}
