//! The seccomp filter: [`vz_types::policy::DENIALS`] compiled to classic BPF for three ABIs and installed
//! *without* no_new_privs, so that sudo works inside. (seccompiler kills foreign ABIs and forces
//! no_new_privs, hence our own few instructions.)
//!
//! ```text
//! arch x86_64 -> nr without the x32 bit -> rows of x86_64 -> allow
//! arch i386   -> nr                     -> rows of i386   -> allow
//! other arch  -> ENOSYS
//! ```

use std::io;
use vz_types::{
    config::Feature,
    policy::{DENIALS, Denial, GUARDED, Guard, NEVER_X32, When, X32_BIT},
};

const ARCH_X86_64: u32 = 0xc000_003e;
const ARCH_I386: u32 = 0x4000_0003;
const RET_ALLOW: u32 = 0x7fff_0000;
const RET_ERRNO: u32 = 0x0005_0000;
const ENOSYS: u32 = 38;

// linux/bpf_common.h
const LD_ABS: u16 = 0x20;
const LD_MEM: u16 = 0x60;
const ST: u16 = 0x02;
const AND: u16 = 0x54;
const JA: u16 = 0x05;
const JEQ: u16 = 0x15;
const JSET: u16 = 0x45;
const RET: u16 = 0x06;

/// A compiled filter.
#[derive(Clone)]
pub struct Filter(Vec<libc::sock_filter>);

impl std::fmt::Debug for Filter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Filter({} instructions)", self.0.len())
    }
}

fn op(code: u16, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code, jt, jf, k }
}

/// Offset of the low 32 bits of argument `n` in `struct seccomp_data` on a little-endian machine.
fn arg(n: u8) -> u32 {
    16 + 8 * u32::from(n)
}

/// The row's test: with the call number in A and in M[0], falls through when the row does not apply.
fn row(out: &mut Vec<libc::sock_filter>, nr: u32, d: &Denial) {
    let deny = op(RET, 0, 0, RET_ERRNO | u32::from(d.errno.number()));
    let mut body = Vec::new();
    match d.when {
        When::Always => body.push(deny),
        When::NotOneOf(a, values) => {
            body.push(op(LD_ABS, 0, 0, arg(a)));
            for (i, v) in values.iter().enumerate() {
                // Over the remaining compares and the deny.
                body.push(op(JEQ, (values.len() - i) as u8, 0, *v));
            }
            body.push(deny);
        }
        When::OneOf(a, values) => {
            body.push(op(LD_ABS, 0, 0, arg(a)));
            for (i, v) in values.iter().enumerate() {
                // To the deny over the remaining compares and the jump that ends them.
                body.push(op(JEQ, (values.len() - i) as u8, 0, *v));
            }
            body.push(op(JA, 0, 0, 1));
            body.push(deny);
        }
        When::AnyBit(a, bits) => {
            body.push(op(LD_ABS, 0, 0, arg(a)));
            body.push(op(JSET, 0, 1, bits));
            body.push(deny);
        }
        When::BothEqual(a, x, b, y) => {
            body.push(op(LD_ABS, 0, 0, arg(a)));
            body.push(op(JEQ, 0, 3, x));
            body.push(op(LD_ABS, 0, 0, arg(b)));
            body.push(op(JEQ, 0, 1, y));
            body.push(deny);
        }
    }
    if d.when != When::Always {
        body.push(op(LD_MEM, 0, 0, 0));
    }
    out.push(op(JEQ, 0, body.len() as u8, nr));
    out.extend(body);
}

fn section(
    rows: impl Iterator<Item = (u32, &'static Denial)>,
    prologue: &[libc::sock_filter],
) -> Vec<libc::sock_filter> {
    let mut out = vec![op(LD_ABS, 0, 0, 0)];
    out.extend_from_slice(prologue);
    out.push(op(ST, 0, 0, 0));
    for (nr, d) in rows {
        row(&mut out, nr, d);
    }
    out.push(op(RET, 0, 0, RET_ALLOW));
    out
}

impl Filter {
    /// Compiles the table, without the rows that `features` lift and those that `guards` make needless.
    pub fn compile(features: &[Feature], guards: &[Guard]) -> Self {
        let wanted = |d: &&'static Denial| d.unless.is_none_or(|f| !features.contains(&f));
        let unguarded = GUARDED.iter().filter(|(guard, _)| !guards.contains(guard)).map(|(_, d)| d);
        let rows: Vec<&'static Denial> = DENIALS.iter().chain(unguarded).filter(wanted).collect();
        let mut prologue: Vec<_> =
            NEVER_X32.iter().flat_map(|nr| [op(JEQ, 0, 1, nr | X32_BIT), op(RET, 0, 0, RET_ERRNO | ENOSYS)]).collect();
        prologue.push(op(AND, 0, 0, !X32_BIT));
        let wide = section(rows.iter().filter_map(|d| d.x86_64.map(|n| (n, *d))), &prologue);
        let narrow = section(rows.iter().filter_map(|d| d.i386.map(|n| (n, *d))), &[]);
        let mut all = vec![
            op(LD_ABS, 0, 0, 4),
            op(JEQ, 2, 0, ARCH_X86_64),
            op(JEQ, 2, 0, ARCH_I386),
            op(RET, 0, 0, RET_ERRNO | ENOSYS),
            op(JA, 0, 0, 1),
            op(JA, 0, 0, wide.len() as u32),
        ];
        all.extend(wide);
        all.extend(narrow);
        Self(all)
    }

    /// Allows these calls of x86_64 (`libc::SYS_*`) and nothing else: the others answer `EPERM`, those of another ABI end
    /// the process.
    pub fn only(calls: &[libc::c_long]) -> Self {
        const RET_KILL_PROCESS: u32 = 0x8000_0000;
        const EPERM: u32 = 1;
        let mut all = vec![
            op(LD_ABS, 0, 0, 4),
            op(JEQ, 1, 0, ARCH_X86_64),
            op(RET, 0, 0, RET_KILL_PROCESS),
            // x32's numbers have their own bit and match no row.
            op(LD_ABS, 0, 0, 0),
        ];
        for call in calls {
            all.push(op(JEQ, 0, 1, *call as u32));
            all.push(op(RET, 0, 0, RET_ALLOW));
        }
        all.push(op(RET, 0, 0, RET_ERRNO | EPERM));
        Self(all)
    }

    /// Installs it for this thread and everything it executes. Needs CAP_SYS_ADMIN in the own user namespace.
    ///
    /// # Errors
    /// What seccomp(2) says.
    pub fn install(&self) -> io::Result<()> {
        const SECCOMP_SET_MODE_FILTER: libc::c_uint = 1;
        let program = libc::sock_fprog { len: self.0.len() as libc::c_ushort, filter: self.0.as_ptr().cast_mut() };
        // SAFETY: `program` points at `len` instructions that outlive the call; the kernel copies and checks them.
        let r = unsafe { libc::syscall(libc::SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &raw const program) };
        if r < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the filter as the kernel would: the answer for one call.
    fn answer(features: &[Feature], arch: u32, nr: u32, args: [u64; 6]) -> u32 {
        run(&Filter::compile(features, &[]), arch, nr, args)
    }

    fn run(filter: &Filter, arch: u32, nr: u32, args: [u64; 6]) -> u32 {
        let program = &filter.0;
        let load = |k: u32| match k {
            0 => nr,
            4 => arch,
            k => {
                let n = ((k - 16) / 8) as usize;
                if (k - 16) % 8 == 0 { args[n] as u32 } else { (args[n] >> 32) as u32 }
            }
        };
        let (mut pc, mut a, mut m) = (0usize, 0u32, 0u32);
        loop {
            let i = program[pc];
            pc += 1;
            match i.code {
                LD_ABS => a = load(i.k),
                LD_MEM => a = m,
                ST => m = a,
                AND => a &= i.k,
                JA => pc += i.k as usize,
                JEQ => pc += usize::from(if a == i.k { i.jt } else { i.jf }),
                JSET => pc += usize::from(if a & i.k != 0 { i.jt } else { i.jf }),
                RET => return i.k,
                other => panic!("code {other}"),
            }
        }
    }

    #[test]
    fn a_list_of_calls_allows_those_and_no_others() {
        let filter = Filter::only(&[libc::SYS_read, libc::SYS_openat2]);
        let ask = |arch, nr: libc::c_long| run(&filter, arch, nr as u32, [0; 6]);
        assert_eq!(ask(ARCH_X86_64, libc::SYS_read), RET_ALLOW);
        assert_eq!(ask(ARCH_X86_64, libc::SYS_openat2), RET_ALLOW);
        assert_eq!(ask(ARCH_X86_64, libc::SYS_execve), RET_ERRNO | 1);
        assert_eq!(ask(ARCH_X86_64, libc::SYS_read | libc::c_long::from(X32_BIT)), RET_ERRNO | 1);
        assert_eq!(ask(ARCH_I386, libc::SYS_read), 0x8000_0000);
    }

    #[test]
    fn every_row_denies_on_its_abis_and_features_lift_it() {
        for d in DENIALS {
            let mut args = [0u64; 6];
            match d.when {
                When::Always => {}
                When::NotOneOf(a, _) => args[a as usize] = 38,
                When::OneOf(a, values) => {
                    for v in values {
                        args[a as usize] = u64::from(*v);
                        let nr = d.x86_64.unwrap();
                        assert_eq!(answer(&[], ARCH_X86_64, nr, args), RET_ERRNO | u32::from(d.errno.number()));
                    }
                }
                When::AnyBit(a, bits) => args[a as usize] = 1 << bits.trailing_zeros(),
                When::BothEqual(a, x, b, y) => {
                    args[a as usize] = x.into();
                    args[b as usize] = y.into();
                }
            }
            let denied = RET_ERRNO | u32::from(d.errno.number());
            for (arch, nr) in
                [(ARCH_X86_64, d.x86_64), (ARCH_X86_64, d.x86_64.map(|n| n | X32_BIT)), (ARCH_I386, d.i386)]
            {
                let Some(nr) = nr else { continue };
                if NEVER_X32.iter().any(|never| never | X32_BIT == nr) {
                    assert_eq!(answer(&[Feature::IoUring], arch, nr, args), denied, "{} on x32", d.call);
                    continue;
                }
                assert_eq!(answer(&[], arch, nr, args), denied, "{} on {arch:#x}", d.call);
                if let Some(f) = d.unless {
                    assert_eq!(answer(&[f], arch, nr, args), RET_ALLOW, "{} with {f:?}", d.call);
                }
            }
        }
    }

    #[test]
    fn what_a_guard_bounds_is_denied_where_it_is_missing_and_for_other_abis_always() {
        let ring = |option| [3, 263, option, 0, 28, 0];
        let denied = RET_ERRNO | 92;
        for option in [5, 13, 18] {
            let ask = |guards: &[Guard], arch, nr| run(&Filter::compile(&[], guards), arch, nr, ring(option));
            assert_eq!(ask(&[], ARCH_X86_64, 54), denied);
            assert_eq!(ask(&[Guard::Rings], ARCH_X86_64, 54), RET_ALLOW);
            for guards in [&[][..], &[Guard::Rings]] {
                assert_eq!(ask(guards, ARCH_X86_64, 541 | X32_BIT), denied);
                assert_eq!(ask(guards, ARCH_I386, 366), denied);
            }
        }
        assert_eq!(answer(&[], ARCH_X86_64, 54, ring(8)), RET_ALLOW);
    }

    #[test]
    fn ordinary_calls_pass_and_foreign_abis_get_enosys() {
        for (nr, args) in [
            (0, [0; 6]),
            (56, [0x11, 0, 0, 0, 0, 0]),
            (41, [2, 1, 0, 0, 0, 0]),
            (272, [0x20000, 0, 0, 0, 0, 0]),
            (59, [0; 6]),
            // FS_IOC_GETFLAGS, TCGETS
            (16, [3, 0x8008_6601, 0, 0, 0, 0]),
            (16, [0, 0x5401, 0, 0, 0, 0]),
        ] {
            assert_eq!(answer(&[], ARCH_X86_64, nr, args), RET_ALLOW, "{nr}");
        }
        assert_eq!(answer(&[], 0xc000_00b7, 0, [0; 6]), RET_ERRNO | ENOSYS);
    }

    #[test]
    fn numbers_are_the_c_librarys() {
        for (name, number) in [
            ("kexec_load", libc::SYS_kexec_load),
            ("finit_module", libc::SYS_finit_module),
            ("bpf", libc::SYS_bpf),
            ("open_by_handle_at", libc::SYS_open_by_handle_at),
            ("unshare", libc::SYS_unshare),
            ("clone", libc::SYS_clone),
            ("clone3", libc::SYS_clone3),
            ("socket", libc::SYS_socket),
            ("setsockopt", libc::SYS_setsockopt),
            ("umount2", libc::SYS_umount2),
            ("keyctl", libc::SYS_keyctl),
            ("userfaultfd", libc::SYS_userfaultfd),
            ("perf_event_open", libc::SYS_perf_event_open),
            ("io_uring_setup", libc::SYS_io_uring_setup),
            ("fanotify_init", libc::SYS_fanotify_init),
            ("quotactl_fd", libc::SYS_quotactl_fd),
            ("clock_settime", libc::SYS_clock_settime),
            ("settimeofday", libc::SYS_settimeofday),
            ("syslog", libc::SYS_syslog),
            ("acct", libc::SYS_acct),
            ("swapon", libc::SYS_swapon),
            ("swapoff", libc::SYS_swapoff),
            ("add_key", libc::SYS_add_key),
            ("request_key", libc::SYS_request_key),
            ("kexec_file_load", libc::SYS_kexec_file_load),
            ("ioctl", libc::SYS_ioctl),
        ] {
            let mut all = DENIALS.iter().chain(GUARDED.iter().map(|(_, d)| d));
            let row = all.find(|d| d.call == name && d.x86_64.is_some()).unwrap();
            assert_eq!(row.x86_64.map(i64::from), Some(number), "{name}");
        }
    }
}
