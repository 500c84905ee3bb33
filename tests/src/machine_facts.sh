# What an init finds, one fact a line: `KEY VALUE`. Run as root of a machine, or of a container.
# The kernel's files below /proc/sys are facts too: `sysctl NAME VALUE`.
set -u
export LC_ALL=C
set -f
# Split into words by the shell itself: a process each would take minutes on an emulated machine.
one() { key=$1; set -- $2; echo "$key $*"; }
file() { if [ -r "$2" ]; then one "$1" "$(cat "$2" 2>/dev/null)"; else one "$1" -; fi; }

awk 'NR > 1 { name = substr($0, 1, 26); sub(/^Max /, "", name); sub(/ *$/, "", name); gsub(/ /, "-", name)
    print "limit." name, substr($0, 27, 40) }' /proc/1/limits | tr -s ' '
awk '/^(SigBlk|CapInh|CapPrm|CapEff|CapBnd|CapAmb|NoNewPrivs|Seccomp|Groups|Umask):/ { key = $1; sub(":", "", key); $1 = ""
    print "status." key $0 }' /proc/1/status
all=$(awk '/^Cpus_allowed_list:/ { print $2 }' /proc/1/status)
[ "$all" = "$(cat /sys/devices/system/cpu/online)" ] && all=all
one status.Cpus_allowed "$all"
for name in oom_score_adj personality timerslack_ns coredump_filter loginuid sessionid attr/current; do
    file "process.$name" "/proc/1/$name"
done
one process.root "$(readlink /proc/1/root)"
one process.cwd "$(readlink /proc/1/cwd)"
stat=$(sed 's/.*) //' /proc/1/stat)
set -- $stat
# proc_pid_stat(5): from the third field on.
one process.parent "$2"; one process.group "$3"; one process.session "$4"; one process.terminal "$5"
one process.priority "${16}"; one process.nice "${17}"; one process.rt_priority "${38}"; one process.policy "${39}"
one process.environment "$(tr '\0' '\n' </proc/1/environ | sed 's/=.*//' | sort)"
one ids.uid_map "$(cat /proc/1/uid_map)"; one ids.gid_map "$(cat /proc/1/gid_map)"; file ids.setgroups /proc/1/setgroups

# Mounts that every machine has, with what is shared. mountinfo: proc_pid_mountinfo(5).
awk 'BEGIN { split("/ /proc /sys /sys/fs/cgroup /dev /dev/pts /dev/shm /dev/mqueue /run /tmp", all, " ") }
    { shared = "private"; for (i = 7; $i != "-"; i++) if ($i ~ /^(shared|master)/) { sub(/:.*/, "", $i); shared = $i }
      n = split($6, o, ","); kept = $(i + 1) " " o[1]
      for (j = 2; j <= n; j++) if (o[j] ~ /^no(suid|dev|exec)$/) kept = kept " " o[j]
      kind[$5] = kept; tree[$5] = shared }
    END { for (i = 1; i in all; i++) { at = all[i]; print "mount." at ".kind", kind[at]; print "mount." at ".propagation", tree[at] } }' \
    /proc/1/mountinfo
cd /dev
for name in null zero full random urandom tty console ptmx kmsg mem port fuse net/tun loop-control rtc0 tty0 tty1 ttyS0 hwrng; do
    [ -e "$name" ] || echo "dev.$name -"
done
stat -c 'dev.%n %F %t:%T %a' null zero full random urandom tty console ptmx kmsg mem port fuse net/tun loop-control rtc0 tty0 tty1 ttyS0 \
    hwrng 2>/dev/null
for name in fd stdin stdout stderr core log initctl; do one "dev.$name" "$(readlink "$name" || echo -)"; done
one dev.console.terminal "$(tty </dev/console)"
for name in cmdline cpuinfo crypto devices filesystems interrupts iomem ioports kallsyms kcore key-users keys kmsg kpagecount latency_stats \
    loadavg locks meminfo misc modules mounts partitions sched_debug slabinfo softirqs stat swaps sysrq-trigger timer_list uptime version vmallocinfo vmstat zoneinfo; do
    got=-
    # The kernel's messages are waited for by whoever reads them.
    case $name in kmsg | sysrq-trigger) [ -e "/proc/$name" ] && got=exists ;; *)
        if [ -e "/proc/$name" ]; then got=empty; { IFS= read -r line && got=there; } 2>/dev/null <"/proc/$name"; fi ;;
    esac
    one "proc.$name" "$got"
done
for name in block bus class dev devices firmware fs hypervisor kernel module power; do
    got=-; [ -d "/sys/$name" ] && { got=empty; [ -n "$(ls -A "/sys/$name" 2>/dev/null)" ] && got=there; }; one "sys.$name" "$got"
done
for name in bpf cgroup ext4 fuse pstore resctrl selinux xfs; do [ -d "/sys/fs/$name" ] && one "sys.fs.$name" there || one "sys.fs.$name" -; done
for name in config debug security tracing; do one "sys.kernel.$name" "$([ -n "$(ls -A "/sys/kernel/$name" 2>/dev/null)" ] && echo there || echo -)"; done
one cgroup.controllers "$(cat /sys/fs/cgroup/cgroup.controllers 2>/dev/null)"
one cgroup.init "$(cat /proc/1/cgroup)"
one cgroup.files "$(cd /sys/fs/cgroup 2>/dev/null && ls | grep -E '^cgroup\.(type|kill|freeze|events)$' | sort)"
for name in time cgroup uts ipc net pid user mnt; do one "namespace.$name" "$([ -e /proc/1/ns/$name ] && echo there || echo -)"; done
one network.lo "$(cat /sys/class/net/lo/operstate 2>/dev/null) $(cat /sys/class/net/lo/flags 2>/dev/null)"
# Changing figures, identities, and what belongs to one interface or disk, are no state an init finds. In one process,
# as they are many.
cd /proc/sys
grep -rs '' . | sed 's/:/ /' | tr -s '\t ' '  ' >/tmp/facts.$$
grep -r '' . 2>&1 >/dev/null | sed -n 's/^grep: \(.*\): .*/\1 unreadable/p' >>/tmp/facts.$$
# By name, not by path; an empty one has no line of its own.
sed 's/^\.\///' /tmp/facts.$$ | awk '{ path = $1; gsub("/", ".", path); $1 = ""; print "sysctl." path $0 }' | grep -Ev \
    -e '^sysctl\.(kernel\.random\.|fs\.(dentry-state|file-nr|inode-|aio-nr|quota\.|binfmt_misc\.)|debug\.)' \
    -e '^sysctl\.kernel\.(ns_last_pid|pty\.nr|hostname|tainted|sched_domain\.)' \
    -e '^sysctl\.net\.(netfilter\.(nf_log\.|nf_conntrack_(count|buckets|max|expect_max))|nf_conntrack_max)' \
    -e '^sysctl\.net\.ipv[46]\.(tcp_fastopen_key|(conf|neigh)\.(lo|e|v|d|s)[a-z0-9-]*\.[a-z_0-9]+ )' \
    -e '\.(stable_secret|netdev_rss_key) ' | grep -E -e '\.(conf|neigh)\.(all|default)\.' -e '^sysctl\.' | sort -u
rm -f /tmp/facts.$$
