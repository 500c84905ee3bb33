//! bpf(2) for cgroup programs written by hand: instructions, an assembler with labels, maps, loading, attaching, and
//! finding again what is attached. Format: kernel Documentation/bpf/standardization/instruction-set.rst and
//! include/uapi/linux/bpf.h. Nothing is pinned: a program lives as long as the cgroup it is attached to, and is found
//! again through it.

use rustix::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::{collections::HashMap, io};

/// One 8-byte eBPF instruction.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Insn {
    pub(crate) code: u8,
    pub(crate) regs: u8,
    pub(crate) off: i16,
    pub(crate) imm: i32,
}

/// An instruction from its parts.
pub(crate) const fn insn(code: u8, dst: u8, src: u8, off: i16, imm: i32) -> Insn {
    Insn { code, regs: src << 4 | dst, off, imm }
}

/// Operation codes that are used.
pub(crate) mod op {
    pub const LDX_B: u8 = 0x71;
    pub const LDX_H: u8 = 0x69;
    pub const LDX_W: u8 = 0x61;
    pub const LDX_DW: u8 = 0x79;
    pub const STX_W: u8 = 0x63;
    pub const STX_DW: u8 = 0x7b;
    pub const ST_W: u8 = 0x62;
    pub const ST_DW: u8 = 0x7a;
    pub const ATOMIC_DW: u8 = 0xdb;
    pub const MOV_K: u8 = 0xb7;
    pub const MOV_X: u8 = 0xbf;
    pub const ADD_K: u8 = 0x07;
    pub const ADD_X: u8 = 0x0f;
    pub const SUB_X: u8 = 0x1f;
    pub const MUL_X: u8 = 0x2f;
    pub const OR_X: u8 = 0x4f;
    pub const AND_K: u8 = 0x57;
    pub const LSH_K: u8 = 0x67;
    pub const RSH_K: u8 = 0x77;
    pub const JEQ_K: u8 = 0x15;
    pub const JNE_K: u8 = 0x55;
    pub const JNE_X: u8 = 0x5d;
    pub const JGE_X: u8 = 0x3d;
    pub const JGT_K: u8 = 0x25;
    pub const JGT_X: u8 = 0x2d;
    pub const JLT_X: u8 = 0xad;
    pub const JA: u8 = 0x05;
    pub const CALL: u8 = 0x85;
    pub const EXIT: u8 = 0x95;
    pub const LD_IMM64: u8 = 0x18;
}

/// Helpers that are called (enum bpf_func_id).
pub(crate) mod helper {
    pub const MAP_LOOKUP: i32 = 1;
    pub const SKB_LOAD_BYTES: i32 = 26;
    pub const SOCK_OPS_CB_FLAGS: i32 = 59;
    pub const SYSCTL_NAME: i32 = 101;
    pub const SK_STORAGE_GET: i32 = 107;
    pub const RINGBUF_OUTPUT: i32 = 130;
    pub const SET_RETVAL: i32 = 187;
}

/// A program under construction: jumps go to labels, which are put where they belong once.
#[derive(Debug, Default)]
pub(crate) struct Asm {
    code: Vec<Insn>,
    labels: HashMap<&'static str, usize>,
    jumps: Vec<(usize, &'static str)>,
}

impl Asm {
    pub(crate) fn put(&mut self, code: u8, dst: u8, src: u8, off: i16, imm: i32) -> &mut Self {
        self.code.push(insn(code, dst, src, off, imm));
        self
    }
    /// A conditional jump on a register and a number, or another register.
    pub(crate) fn jump(&mut self, code: u8, dst: u8, src: u8, imm: i32, to: &'static str) -> &mut Self {
        self.jumps.push((self.code.len(), to));
        self.put(code, dst, src, 0, imm)
    }
    pub(crate) fn label(&mut self, name: &'static str) -> &mut Self {
        self.labels.insert(name, self.code.len());
        self
    }
    pub(crate) fn call(&mut self, helper: i32) -> &mut Self {
        self.put(op::CALL, 0, 0, 0, helper)
    }
    /// Loads the address of a map, by descriptor (BPF_PSEUDO_MAP_FD).
    pub(crate) fn map(&mut self, dst: u8, map: &OwnedFd) -> &mut Self {
        self.put(op::LD_IMM64, dst, 1, 0, map.as_raw_fd()).put(0, 0, 0, 0, 0)
    }
    /// The address of the stack at `off` below its top.
    pub(crate) fn stack(&mut self, dst: u8, off: i32) -> &mut Self {
        self.put(op::MOV_X, dst, 10, 0, 0).put(op::ADD_K, dst, 0, 0, off)
    }
    /// Ends with this answer.
    pub(crate) fn answer(&mut self, value: i32) -> &mut Self {
        self.put(op::MOV_K, 0, 0, 0, value).put(op::EXIT, 0, 0, 0, 0)
    }
    /// The finished program.
    pub(crate) fn build(mut self) -> Vec<Insn> {
        for (at, to) in &self.jumps {
            // A missing label is a mistake of this crate, found by its tests: the kernel refuses the jump to itself.
            let target = self.labels.get(to).copied().unwrap_or(*at);
            self.code[*at].off = (target as i64 - *at as i64 - 1) as i16;
        }
        self.code
    }
}

fn bpf<T>(command: libc::c_int, attr: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: every caller passes a `repr(C)` structure whose pointers refer to memory that outlives the call, with its
    // size; the kernel reads it and writes at most that many bytes back.
    let r = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<T>()) };
    if r < 0 { Err(io::Error::last_os_error()) } else { Ok(r) }
}

fn new_fd(r: libc::c_long) -> OwnedFd {
    // SAFETY: bpf(2) returned a new descriptor that nobody else owns.
    unsafe { OwnedFd::from_raw_fd(r as i32) }
}

/// `BPF_MAP_CREATE`'s part of union bpf_attr.
#[repr(C)]
#[derive(Default)]
struct MapAttr {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    inner_map_fd: u32,
    numa_node: u32,
    map_name: [u8; 16],
    map_ifindex: u32,
    btf_fd: u32,
    btf_key_type_id: u32,
    btf_value_type_id: u32,
}

const ARRAY: u32 = 2;
const SK_STORAGE: u32 = 24;
const RINGBUF: u32 = 27;

/// A new ring of one page through which programs send messages. Its descriptor is readable (poll(2)) while there are any.
///
/// # Errors
/// What bpf(2) says.
pub(crate) fn new_ring() -> io::Result<OwnedFd> {
    let mut attr = MapAttr { map_type: RINGBUF, max_entries: rustix::param::page_size() as u32, ..MapAttr::default() };
    bpf(0, &mut attr).map(new_fd)
}

/// A new array of `entries` values of this size.
///
/// # Errors
/// What bpf(2) says.
pub fn new_array(value: u32, entries: u32) -> io::Result<OwnedFd> {
    let mut attr =
        MapAttr { map_type: ARRAY, key_size: 4, value_size: value, max_entries: entries, ..MapAttr::default() };
    bpf(0, &mut attr).map(new_fd)
}

/// A new 64-bit word in every socket that gets one, beginning at 0; it goes with its socket. No table: it takes memory per socket
/// that has it and none besides.
///
/// # Errors
/// What bpf(2) says.
pub fn new_socket_word() -> io::Result<OwnedFd> {
    new_socket_words(1)
}

/// As [`new_socket_word`], with so many of them.
///
/// # Errors
/// What bpf(2) says.
pub(crate) fn new_socket_words(words: u32) -> io::Result<OwnedFd> {
    // The kernel wants to know the types (BTF, Documentation/bpf/btf.rst): an int of 32 bits as key, here a second one
    // of 64, and an array of those as value.
    const INT: u32 = 1 << 24;
    const ARRAY_OF: u32 = 3 << 24;
    const NAMES: &[u8] = b"\0key\0word\0";
    let types: [u32; 14] = [1, INT, 4, 32, 5, INT, 8, 64, 0, ARRAY_OF, 0, 2, 1, words];
    let header: [u32; 6] =
        [0x0001_eb9f, 24, 0, size_of_val(&types) as u32, size_of_val(&types) as u32, NAMES.len() as u32];
    let mut blob: Vec<u8> = header.iter().chain(&types).flat_map(|w| w.to_ne_bytes()).collect();
    blob.extend_from_slice(NAMES);
    #[repr(C)]
    struct BtfAttr {
        btf: u64,
        btf_log_buf: u64,
        btf_size: u32,
        btf_log_size: u32,
        btf_log_level: u32,
    }
    let mut attr = BtfAttr {
        btf: blob.as_ptr() as u64,
        btf_log_buf: 0,
        btf_size: blob.len() as u32,
        btf_log_size: 0,
        btf_log_level: 0,
    };
    let btf = bpf(18, &mut attr).map(new_fd)?;
    const NO_PREALLOC: u32 = 1;
    let mut attr = MapAttr {
        map_type: SK_STORAGE,
        key_size: 4,
        value_size: 8 * words,
        map_flags: NO_PREALLOC,
        btf_fd: btf.as_raw_fd() as u32,
        btf_key_type_id: 1,
        btf_value_type_id: 3,
        ..MapAttr::default()
    };
    bpf(0, &mut attr).map(new_fd)
}

#[repr(C)]
struct ElementAttr {
    map_fd: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// An entry of an array map as 64-bit words.
///
/// # Errors
/// What bpf(2) says.
pub fn read_words<const N: usize>(map: &OwnedFd, index: u32) -> io::Result<[u64; N]> {
    let mut out = [0u64; N];
    let mut attr = ElementAttr {
        map_fd: map.as_raw_fd() as u32,
        pad: 0,
        key: (&raw const index) as u64,
        value: out.as_mut_ptr() as u64,
        flags: 0,
    };
    bpf(1, &mut attr)?;
    Ok(out)
}

/// Replaces an entry of an array map.
///
/// # Errors
/// What bpf(2) says.
pub fn write_words<const N: usize>(map: &OwnedFd, index: u32, words: [u64; N]) -> io::Result<()> {
    let mut attr = ElementAttr {
        map_fd: map.as_raw_fd() as u32,
        pad: 0,
        key: (&raw const index) as u64,
        value: words.as_ptr() as u64,
        flags: 0,
    };
    bpf(2, &mut attr).map(drop)
}

/// Where a program is attached, with the type of program that takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hook {
    pub(crate) program: u32,
    pub(crate) attach: u32,
}

impl Hook {
    /// Packets coming in to sockets of the cgroup.
    pub const INGRESS: Self = Self { program: 8, attach: 0 };
    /// socket(2) of the inet families.
    pub const SOCK_CREATE: Self = Self { program: 9, attach: 2 };
    /// The end of such a socket.
    pub const SOCK_RELEASE: Self = Self { program: 9, attach: 34 };
    /// Events of TCP sockets.
    pub const SOCK_OPS: Self = Self { program: 13, attach: 3 };
    /// Making and opening device nodes.
    pub const DEVICE: Self = Self { program: 15, attach: 6 };
    /// Reads and writes of /proc/sys.
    pub const SYSCTL: Self = Self { program: 23, attach: 18 };
    /// setsockopt(2), except by calls of another ABI.
    pub const SETSOCKOPT: Self = Self { program: 25, attach: 22 };
    /// Walks over objects of the kernel.
    pub(crate) const WALK: Self = Self { program: 26, attach: 28 };
}

/// Loads a program for a hook.
///
/// # Errors
/// What bpf(2) says, with the verifier's last words.
pub(crate) fn load(hook: Hook, program: &[Insn]) -> io::Result<OwnedFd> {
    load_for(hook, 0, program)
}

/// As [`load`], for a function of the kernel's by its number among its types ([`crate::btf`]).
///
/// # Errors
/// As [`load`].
pub(crate) fn load_for(hook: Hook, function: u32, program: &[Insn]) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Attr {
        prog_type: u32,
        insn_cnt: u32,
        insns: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log_buf: u64,
        kern_version: u32,
        prog_flags: u32,
        prog_name: [u8; 16],
        prog_ifindex: u32,
        expected_attach_type: u32,
        prog_btf_fd: u32,
        func_info_rec_size: u32,
        func_info: u64,
        func_info_cnt: u32,
        line_info_rec_size: u32,
        line_info: u64,
        line_info_cnt: u32,
        attach_btf_id: u32,
    }
    let license = c"Dual MIT/GPL";
    let mut log = vec![0u8; 64 << 10];
    let mut name = [0; 16];
    name[..NAME.len()].copy_from_slice(NAME);
    let mut attr = Attr {
        prog_type: hook.program,
        insn_cnt: program.len() as u32,
        insns: program.as_ptr() as u64,
        license: license.as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kern_version: 0,
        prog_flags: 0,
        prog_name: name,
        prog_ifindex: 0,
        expected_attach_type: hook.attach,
        prog_btf_fd: 0,
        func_info_rec_size: 0,
        func_info: 0,
        func_info_cnt: 0,
        line_info_rec_size: 0,
        line_info: 0,
        line_info_cnt: 0,
        attach_btf_id: function,
    };
    match bpf(5, &mut attr) {
        Ok(r) => Ok(new_fd(r)),
        // A second time for the verifier's words, which cost time and are wanted only then.
        Err(first) => {
            (attr.log_level, attr.log_size, attr.log_buf) = (1, log.len() as u32, log.as_mut_ptr() as u64);
            if let Ok(r) = bpf(5, &mut attr) {
                return Ok(new_fd(r));
            }
            let said = String::from_utf8_lossy(&log);
            let said = said.trim_end_matches('\0').lines().rev().take(4).collect::<Vec<_>>();
            Err(io::Error::new(
                first.kind(),
                format!("{first}: {}", said.into_iter().rev().collect::<Vec<_>>().join("; ")),
            ))
        }
    }
}

/// Every program of ours carries this name.
const NAME: &[u8] = b"vz_limits";

/// What attaching and detaching are told (bpf(2), BPF_PROG_ATTACH).
#[repr(C)]
struct AttachAttr {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
    replace_bpf_fd: u32,
}

impl AttachAttr {
    fn new(cgroup: BorrowedFd<'_>, hook: Hook, program: &OwnedFd, attach_flags: u32) -> Self {
        Self {
            target_fd: cgroup.as_raw_fd() as u32,
            attach_bpf_fd: program.as_raw_fd() as u32,
            attach_type: hook.attach,
            attach_flags,
            replace_bpf_fd: 0,
        }
    }
}

/// Attaches a program to a cgroup beside others (BPF_F_ALLOW_MULTI).
///
/// # Errors
/// What bpf(2) says.
pub(crate) fn attach(cgroup: BorrowedFd<'_>, hook: Hook, program: &OwnedFd) -> io::Result<()> {
    const ALLOW_MULTI: u32 = 2;
    bpf(8, &mut AttachAttr::new(cgroup, hook, program, ALLOW_MULTI)).map(drop)
}

/// Takes a program off a cgroup; those that are not on it do no harm.
///
/// # Errors
/// What bpf(2) says.
pub(crate) fn detach(cgroup: BorrowedFd<'_>, hook: Hook, program: &OwnedFd) -> io::Result<()> {
    match bpf(9, &mut AttachAttr::new(cgroup, hook, program, 0)) {
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        done => done.map(drop),
    }
}

/// Makes a walk over a map's entries: whoever reads what [`walk`] gives has `program` called for each.
///
/// # Errors
/// What bpf(2) says.
pub(crate) fn new_walk(program: &OwnedFd, map: &OwnedFd) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Attr {
        prog_fd: u32,
        target_fd: u32,
        attach_type: u32,
        flags: u32,
        iter_info: u64,
        iter_info_len: u32,
    }
    let map = map.as_raw_fd() as u32;
    let mut attr = Attr {
        prog_fd: program.as_raw_fd() as u32,
        target_fd: 0,
        attach_type: Hook::WALK.attach,
        flags: 0,
        iter_info: (&raw const map) as u64,
        iter_info_len: 4,
    };
    bpf(28, &mut attr).map(new_fd)
}

/// Walks once, over everything there is now.
///
/// # Errors
/// What bpf(2) or read(2) says.
pub(crate) fn walk(walk: &OwnedFd) -> io::Result<()> {
    #[repr(C)]
    struct Attr {
        link_fd: u32,
        flags: u32,
    }
    let reader = bpf(33, &mut Attr { link_fd: walk.as_raw_fd() as u32, flags: 0 }).map(new_fd)?;
    let mut text = [0u8; 64];
    loop {
        match rustix::io::read(&reader, &mut text) {
            // The programs write nothing: 0 is the end.
            Ok(0) => return Ok(()),
            // Very many entries: it goes on where it was.
            Ok(_) | Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

/// The program of ours that is attached to this hook of a cgroup.
///
/// # Errors
/// What bpf(2) says (`EPERM` without CAP_SYS_ADMIN).
pub fn attached(cgroup: BorrowedFd<'_>, hook: Hook) -> io::Result<Option<OwnedFd>> {
    #[repr(C)]
    struct Query {
        target_fd: u32,
        attach_type: u32,
        query_flags: u32,
        attach_flags: u32,
        prog_ids: u64,
        prog_cnt: u32,
        pad: u32,
    }
    let mut ids = [0u32; 64];
    let mut query = Query {
        target_fd: cgroup.as_raw_fd() as u32,
        attach_type: hook.attach,
        query_flags: 0,
        attach_flags: 0,
        prog_ids: ids.as_mut_ptr() as u64,
        prog_cnt: ids.len() as u32,
        pad: 0,
    };
    bpf(16, &mut query)?;
    for id in &ids[..(query.prog_cnt as usize).min(ids.len())] {
        let program = by_id(13, *id)?;
        let mut info = [0u8; 80];
        object_info(&program, &mut info)?;
        if info[64..].starts_with(NAME) {
            return Ok(Some(program));
        }
    }
    Ok(None)
}

fn by_id(command: libc::c_int, id: u32) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Attr {
        id: u32,
        next_id: u32,
        open_flags: u32,
    }
    bpf(command, &mut Attr { id, next_id: 0, open_flags: 0 }).map(new_fd)
}

/// BPF_OBJ_GET_INFO_BY_FD: as much of struct bpf_prog_info or bpf_map_info as `out` takes.
fn object_info(object: &OwnedFd, out: &mut [u8]) -> io::Result<()> {
    #[repr(C)]
    struct Attr {
        bpf_fd: u32,
        info_len: u32,
        info: u64,
    }
    let mut attr =
        Attr { bpf_fd: object.as_raw_fd() as u32, info_len: out.len() as u32, info: out.as_mut_ptr() as u64 };
    bpf(15, &mut attr).map(drop)
}

/// The array maps a program uses, by the size of their values.
///
/// # Errors
/// What bpf(2) says.
pub fn arrays_of(program: &OwnedFd) -> io::Result<Vec<(u32, OwnedFd)>> {
    // struct bpf_prog_info: nr_map_ids at 52, map_ids at 56.
    let mut ids = [0u32; 8];
    let mut info = [0u8; 80];
    info[52..56].copy_from_slice(&(ids.len() as u32).to_ne_bytes());
    info[56..64].copy_from_slice(&(ids.as_mut_ptr() as u64).to_ne_bytes());
    object_info(program, &mut info)?;
    let count = u32::from_ne_bytes([info[52], info[53], info[54], info[55]]) as usize;
    let mut out = Vec::new();
    for id in &ids[..count.min(ids.len())] {
        let map = by_id(14, *id)?;
        // struct bpf_map_info: type at 0, value_size at 12.
        let mut info = [0u8; 40];
        object_info(&map, &mut info)?;
        let word = |at: usize| u32::from_ne_bytes([info[at], info[at + 1], info[at + 2], info[at + 3]]);
        if word(0) == ARRAY {
            out.push((word(12), map));
        }
    }
    Ok(out)
}

/// Panics unless every jump of a program leads forward to one of its instructions, and it ends with an answer.
#[cfg(test)]
pub(crate) fn assert_well_formed(program: &[Insn]) {
    assert_eq!(program.last().map(|i| i.code), Some(op::EXIT));
    let mut wide = false;
    for (n, i) in program.iter().enumerate() {
        let jump = !wide && i.code & 7 == 5 && i.code != op::CALL && i.code != op::EXIT;
        wide = i.code == op::LD_IMM64;
        if jump {
            let to = n as i64 + 1 + i64::from(i.off);
            assert!(to > n as i64 && (to as usize) < program.len(), "instruction {n}: {i:?}");
        }
    }
}
