//! A program that bounds what the packet sockets of a container's cgroup hold of memory that the kernel charges to
//! nobody: rings (PACKET_RX_RING, PACKET_TX_RING; packet(7)) and the tables of fanout groups.
//!
//! ```text
//!  setsockopt --> granted - freed + size > limit? refuse (ENOMEM), ring the bell
//!                 words of the socket: mark busy, granted + size, size          (granted only grows)
//!  bell --------> recount: walk over the words of all sockets there are,        (freed only grows)
//!                 freed = granted before the walk - their sum
//! ```
//! The kernel tells nobody of a packet socket's end, but its words end with it, whoever held it and in whichever network
//! namespace it was. So what was given back is found by looking at what is still there. A word is set before `granted`
//! grows: what a walk does not find of an older `granted` is gone for certain, and a count that is wrong for a moment is too
//! high, never too low.
//!
//! Calls of the 32-bit ABIs do not come here: seccomp refuses those.

use crate::{
    bell::Bell,
    bpf::{self, Asm, Hook, Insn, helper, op},
    btf,
};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use std::io;

/// `SOL_PACKET` (linux/socket.h) and options of it (linux/if_packet.h).
const SOL_PACKET: i32 = 263;
const RX_RING: i32 = 5;
const TX_RING: i32 = 13;
const FANOUT: i32 = 18;

/// What is held of each kind by one socket: the most it has ever been given. Bit 63: being decided.
const WORDS: u32 = 3;
const WORD_RX: i32 = 0;
const WORD_TX: i32 = 8;
const WORD_FANOUT: i32 = 16;

/// Values of the arrays: (granted) is the program's, (limit, freed, bell) ours.
const COUNTS: u32 = 8;
const LIMITS: u32 = 24;

/// What a walk over the words ends in.
const WALKED: &str = "bpf_iter_bpf_sk_storage_map";

/// The program on one cgroup, and what belongs to it.
#[derive(Debug)]
pub struct Rings {
    words: OwnedFd,
    counts: OwnedFd,
    limits: OwnedFd,
    bell: Bell,
    limit: u64,
    freed: u64,
    /// Made when there is something to be found.
    walk: Option<Walk>,
}

#[derive(Debug)]
struct Walk {
    link: OwnedFd,
    sum: OwnedFd,
}

impl Rings {
    /// Attaches it to a cgroup in which nothing runs yet: in sum `limit` bytes.
    ///
    /// # Errors
    /// What bpf(2) says, or that this kernel does not show its types, without which nothing could be counted again.
    pub fn attach(cgroup: BorrowedFd<'_>, limit: u64) -> io::Result<Self> {
        if !btf::is_there() {
            return Err(io::Error::other("this kernel does not show its types (CONFIG_DEBUG_INFO_BTF)"));
        }
        let words = bpf::new_socket_words(WORDS)?;
        let (counts, limits) = (bpf::new_array(COUNTS, 1)?, bpf::new_array(LIMITS, 1)?);
        let bell = Bell::new()?;
        let program = bpf::load(Hook::SETSOCKOPT, &decide(&words, &counts, &limits, bell.fd()))?;
        let made = Self { words, counts, limits, bell, limit, freed: 0, walk: None };
        made.write()?;
        // One of an earlier monitor would go on counting with nobody who counts again.
        while let Some(old) = bpf::attached(cgroup, Hook::SETSOCKOPT)? {
            bpf::detach(cgroup, Hook::SETSOCKOPT, &old)?;
        }
        bpf::attach(cgroup, Hook::SETSOCKOPT, &program)?;
        Ok(made)
    }

    /// Readable when it is time to count again.
    pub fn bell(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    /// Hears the bell: it is not readable until it rings again.
    pub fn hear(&mut self) {
        self.bell.hear();
    }

    /// Makes what [`Rings::recount`] needs. Takes some milliseconds the first time.
    ///
    /// # Errors
    /// What bpf(2) says, or that the kernel's types cannot be read.
    pub fn prepare(&mut self) -> io::Result<()> {
        if self.walk.is_none() {
            let sum = bpf::new_array(8, 1)?;
            let [function] = btf::functions([WALKED])?;
            let program = bpf::load_for(Hook::WALK, function, &add_up(&sum))?;
            let link = bpf::new_walk(&program, &self.words)?;
            self.walk = Some(Walk { link, sum });
        }
        Ok(())
    }

    /// Finds what was given back, and answers how many bytes are held now, never less than that. Takes microseconds and some
    /// 20 ns per socket, once [`Rings::prepare`] was called.
    ///
    /// # Errors
    /// What bpf(2) says; then nothing counts as given back.
    pub fn recount(&mut self) -> io::Result<u64> {
        let [granted] = bpf::read_words(&self.counts, 0)?;
        let Some(walk) = &self.walk else { return Ok(granted - self.freed) };
        bpf::write_words(&walk.sum, 0, [0])?;
        bpf::walk(&walk.link)?;
        let [live] = bpf::read_words(&walk.sum, 0)?;
        self.freed = self.freed.max(granted.saturating_sub(live));
        self.write()?;
        Ok(granted - self.freed)
    }

    fn write(&self) -> io::Result<()> {
        // From a quarter on it is worth knowing what was given back: the next ones find it counted.
        bpf::write_words(&self.limits, 0, [self.limit, self.freed, self.limit / 4])
    }
}

/// r0 is the only entry of an array.
fn only(a: &mut Asm, map: &OwnedFd, otherwise: &'static str) {
    a.map(1, map).stack(2, -4).call(helper::MAP_LOOKUP).jump(op::JEQ_K, 0, 0, 0, otherwise);
}

/// r0 is the address of the socket's words; r6 is the context.
fn words_of(a: &mut Asm, words: &OwnedFd, make: bool, otherwise: &'static str) {
    a.put(op::LDX_DW, 2, 6, 0, 0).map(1, words).put(op::MOV_K, 3, 0, 0, 0).put(op::MOV_K, 4, 0, 0, i32::from(make));
    a.call(helper::SK_STORAGE_GET).jump(op::JEQ_K, 0, 0, 0, otherwise);
}

/// Context `struct bpf_sockopt`: sk at 0, optval at 8, optval_end at 16, level at 24, optname at 28, optlen at 32. The
/// kernel goes on with the copy that is looked at here unless optlen is set to 0.
fn decide(words: &OwnedFd, counts: &OwnedFd, limits: &OwnedFd, bell: &OwnedFd) -> Vec<Insn> {
    const ENOMEM: i32 = 12;
    /// The longest request, struct tpacket_req3.
    const REQUEST: i32 = 28;
    const LEAST: i32 = 256 << 10;
    const TOP: i16 = -16;
    const LOUD: i16 = -24;
    let mut a = Asm::default();
    a.put(op::MOV_X, 6, 1, 0, 0).put(op::ST_W, 10, 0, -4, 0).put(op::ST_DW, 10, 0, -32, 0);
    a.put(op::LDX_W, 2, 6, 24, 0).jump(op::JNE_K, 2, 0, SOL_PACKET, "pass");
    a.put(op::LDX_W, 7, 6, 28, 0).put(op::LDX_DW, 1, 6, 8, 0).put(op::LDX_DW, 2, 6, 16, 0);
    a.put(op::MOV_K, 9, 0, 0, WORD_RX).jump(op::JEQ_K, 7, 0, RX_RING, "ring");
    a.put(op::MOV_K, 9, 0, 0, WORD_TX).jump(op::JEQ_K, 7, 0, TX_RING, "ring");
    a.put(op::MOV_K, 9, 0, 0, WORD_FANOUT).jump(op::JEQ_K, 7, 0, FANOUT, "fanout");
    a.jump(op::JA, 0, 0, 0, "pass");

    // struct fanout_args: u16, u16, u32 max_num_members; the last may be missing or 0, then it is 256.
    a.label("fanout").put(op::MOV_K, 8, 0, 0, 0).put(op::MOV_X, 3, 1, 0, 0).put(op::ADD_K, 3, 0, 0, 8);
    a.jump(op::JGT_X, 3, 2, 0, "members").put(op::LDX_W, 8, 1, 4, 0);
    // More than that the kernel refuses.
    a.label("members").jump(op::JGT_K, 8, 0, 65_536, "cut");
    a.put(op::ADD_K, 8, 0, 0, 256).put(op::LSH_K, 8, 0, 0, 3).put(op::ADD_K, 8, 0, 0, 4096);
    a.jump(op::JA, 0, 0, 0, "charge");

    // struct tpacket_req: block_size, block_nr. Shorter ones the kernel refuses.
    a.label("ring").put(op::MOV_X, 3, 1, 0, 0).put(op::ADD_K, 3, 0, 0, 16).jump(op::JGT_X, 3, 2, 0, "pass");
    a.put(op::LDX_W, 8, 1, 0, 0).put(op::LDX_W, 7, 1, 4, 0);
    // No block at all: the ring is given back. A block of nothing: the kernel refuses it.
    a.jump(op::JEQ_K, 7, 0, 0, "cut").jump(op::JEQ_K, 8, 0, 0, "cut");
    a.jump(op::JGT_K, 7, 0, 0xff_ffff, "refuse").jump(op::JGT_K, 8, 0, 0x4000_0000, "refuse");
    // A block takes the next power of two, and a pointer.
    a.put(op::ADD_K, 8, 0, 0, -1);
    for bits in [1, 2, 4, 8, 16] {
        a.put(op::MOV_X, 1, 8, 0, 0).put(op::RSH_K, 1, 0, 0, bits).put(op::OR_X, 8, 1, 0, 0);
    }
    a.put(op::ADD_K, 8, 0, 0, 9).put(op::MUL_X, 8, 7, 0, 0);

    // Each costs whoever ends it a wait in the kernel besides: small ones count as this, so that there are not thousands.
    a.jump(op::JGT_K, 8, 0, LEAST, "charge").put(op::MOV_K, 8, 0, 0, LEAST);

    // r8 bytes of the word at r9. What it has already costs nothing.
    a.label("charge");
    words_of(&mut a, words, false, "new");
    a.put(op::ADD_X, 0, 9, 0, 0).put(op::LDX_DW, 1, 0, 0, 0).put(op::MOV_X, 2, 1, 0, 0).put(op::RSH_K, 2, 0, 0, 63);
    a.jump(op::JNE_K, 2, 0, 0, "refuse").jump(op::JGE_X, 1, 8, 0, "cut");
    a.label("new");
    only(&mut a, counts, "refuse");
    a.put(op::MOV_X, 7, 0, 0, 0);
    only(&mut a, limits, "refuse");
    a.put(op::LDX_DW, 1, 0, 0, 0).put(op::LDX_DW, 2, 0, 8, 0).put(op::LDX_DW, 3, 0, 16, 0);
    a.put(op::ADD_X, 1, 2, 0, 0).put(op::STX_DW, 10, 1, TOP, 0).put(op::ADD_X, 3, 2, 0, 0).put(
        op::STX_DW,
        10,
        3,
        LOUD,
        0,
    );
    // Sockets for which there is no room get no words: a walk has nothing to do with them.
    a.put(op::LDX_DW, 2, 7, 0, 0).put(op::ADD_X, 2, 8, 0, 0).jump(op::JGT_X, 2, 1, 0, "refuse");
    words_of(&mut a, words, true, "refuse");
    a.put(op::MOV_X, 2, 0, 0, 0).put(op::ADD_X, 2, 9, 0, 0).put(op::LDX_DW, 0, 2, 0, 0).put(op::MOV_X, 9, 0, 0, 0);
    a.put(op::MOV_X, 1, 0, 0, 0).put(op::RSH_K, 1, 0, 0, 63).jump(op::JNE_K, 1, 0, 0, "refuse");
    a.jump(op::JGE_X, 0, 8, 0, "cut");
    // Busy with the new size. Whoever comes second is refused.
    a.put(op::LD_IMM64, 5, 0, 0, 0).put(0, 0, 0, 0, i32::MIN).put(op::OR_X, 5, 8, 0, 0);
    const CMPXCHG: i32 = 0xf1;
    a.put(op::ATOMIC_DW, 2, 5, 0, CMPXCHG).jump(op::JNE_X, 0, 9, 0, "refuse");
    const FETCH_ADD: i32 = 1;
    a.put(op::MOV_X, 3, 8, 0, 0).put(op::SUB_X, 3, 9, 0, 0).put(op::MOV_X, 4, 3, 0, 0);
    a.put(op::ATOMIC_DW, 7, 4, 0, FETCH_ADD).put(op::ADD_X, 4, 3, 0, 0).put(op::LDX_DW, 1, 10, TOP, 0);
    a.jump(op::JGT_X, 4, 1, 0, "back").put(op::STX_DW, 2, 8, 0, 0);
    a.put(op::LDX_DW, 1, 10, LOUD, 0).jump(op::JGE_X, 1, 4, 0, "cut");
    ring(&mut a, bell);
    // The kernel takes the copy, of which no more than a request counts.
    a.label("cut").put(op::LDX_W, 1, 6, 32, 0).put(op::MOV_K, 2, 0, 0, REQUEST).jump(op::JGE_X, 2, 1, 0, "allow");
    a.put(op::STX_W, 6, 2, 32, 0).label("allow").answer(1);

    // Anything else is none of ours, and may be longer than what is copied for us.
    a.label("pass").put(op::MOV_K, 1, 0, 0, 0).put(op::STX_W, 6, 1, 32, 0).answer(1);

    // What `granted` has too much then, the next walk finds given back.
    a.label("back").put(op::STX_DW, 2, 9, 0, 0);
    a.label("refuse");
    ring(&mut a, bell);
    a.put(op::MOV_K, 1, 0, 0, -ENOMEM).call(helper::SET_RETVAL).answer(0);
    a.build()
}

fn ring(a: &mut Asm, bell: &OwnedFd) {
    a.map(1, bell).stack(2, -32).put(op::MOV_K, 3, 0, 0, 8).put(op::MOV_K, 4, 0, 0, 0).call(helper::RINGBUF_OUTPUT);
}

/// Context `struct bpf_iter__bpf_sk_storage_map`: the value's address at 24, 0 at the end of the walk.
fn add_up(sum: &OwnedFd) -> Vec<Insn> {
    let mut a = Asm::default();
    a.put(op::LDX_DW, 6, 1, 24, 0).jump(op::JEQ_K, 6, 0, 0, "end").put(op::MOV_K, 7, 0, 0, 0);
    for at in 0..WORDS as i16 {
        // Without the mark.
        a.put(op::LDX_DW, 1, 6, 8 * at, 0).put(op::LSH_K, 1, 0, 0, 1).put(op::RSH_K, 1, 0, 0, 1);
        a.put(op::ADD_X, 7, 1, 0, 0);
    }
    a.put(op::ST_W, 10, 0, -4, 0);
    only(&mut a, sum, "end");
    a.put(op::ATOMIC_DW, 0, 7, 0, 0);
    a.label("end").answer(0);
    a.build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_jump_lands_inside_and_every_program_ends_with_an_answer() {
        let fd = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        let (a, b, c, d) = (fd(), fd(), fd(), fd());
        [decide(&a, &b, &c, &d), add_up(&a)].iter().for_each(|p| bpf::assert_well_formed(p));
    }
}
