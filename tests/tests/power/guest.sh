# Operations one after the other, told before and after: on the way out of the machine when its power goes. Several of
# these at once keep vzd busy with everything it does. A worker ends with the first operation that fails.

say() { printf '%s\n' "$*"; }

# KIND SUBJECT GENERATION COMMAND...
op() {
    local kind=$1 subject=$2 g=$3 said code
    shift 3
    say "begin $kind $subject $g"
    said=$("$@" 2>&1 </dev/null)
    code=$?
    say "end $kind $subject $g $code ${said//$'\n'/; }"
    return $code
}

# Every setting of a generation tells which it is: a mixture of two shows.
settings() {
    local c=$1 g=$2 space
    # A mounted image does not grow on every host.
    [ "$c" = 2321 ] && space=204800 || space=$((204800 + g * 4))
    echo "--hostname g$g --name n$c-$g --diskspace $space --description generation-$g" \
        "--ipadd 10.$((100 + c % 100)).$((g / 200)).$((1 + g % 200))"
}

create() { op create "$1" "$2" vzctl create "$1" --ostemplate tiny $(settings "$1" "$2"); }
destroy() { op destroy "$1" 0 vzctl destroy "$1"; }
change() { op set "$1" "$2" vzctl set "$1" --ipdel all $(settings "$1" "$2") --save; }
start() { op start "$1" 0 vzctl start "$1"; }
stop() { op stop "$1" 0 vzctl stop "$1" --fast; }
remove() { op remove "$1" 0 vzctl template remove "$1"; }

# CTID: it starts, and runs something.
works() {
    vzctl start "$1" && vzctl exec2 "$1" true && vzctl stop "$1" --fast
}
# NAME GENERATION: a container of the template is of that generation.
works_from() {
    local code
    vzctl create 2340 --ostemplate "$1" && vzctl start 2340 && [ "$(vzctl exec2 2340 cat /etc/marker)" = "$2" ]
    code=$?
    vzctl stop 2340 --fast
    vzctl destroy 2340
    return $code
}

# A tree on a file system in memory, with the generation in it.
tree() {
    local dir=$WORK/$1
    # Whole or not there: the power may go meanwhile.
    if ! [ -d "$dir" ]; then
        rm -rf "$dir.new" && mkdir -p "$WORK" &&
            cp -a "$VZ_ROOT/var/lib/vz/template/tiny/current/root" "$dir.new" && mv "$dir.new" "$dir" || return
    fi
    echo "$2" >"$dir/etc/marker"
}
build() {
    tree "$1" "$2" || return
    op build "$1" "$2" vzctl template build "$1" --rebuild
}
import() {
    tree "$1" "$2" || return
    tar -C "$WORK/$1" --numeric-owner -cf "$WORK/$1.tar" .
    op import "$1" "$2" vzctl template import "$WORK/$1.tar" --name "$1" --replace
}

# GENERATION CTID:EXISTS...: creates and destroys in turn, so that some stay for a while.
churn() {
    local g=$1 c i p
    shift
    local -A is
    local all=()
    for p; do
        is[${p%:*}]=${p#*:}
        all+=("${p%:*}")
    done
    for ((i = 0; ; i++)); do
        c=${all[i % ${#all[@]}]}
        if [ "${is[$c]}" = 1 ]; then
            destroy "$c" || return
            is[$c]=0
        else
            create "$c" $((++g)) || return
            is[$c]=1
        fi
    done
}

# GENERATION CTID...
setter() {
    local g=$1 c
    shift
    while :; do
        for c; do change "$c" $((++g)) || return; done
    done
}

# CTID
starter() {
    while :; do
        start "$1" || return
        stop "$1" || return
    done
}

# build|import GENERATION NAME
maker() {
    local g=$2
    while :; do
        "$1" "$3" $((++g)) || return
        "$1" "$3" $((++g)) || return
        remove "$3" || return
    done
}

# PID: tells that vzd is gone.
guard() {
    local state
    while read -r _ _ state _ 2>/dev/null <"/proc/$1/stat" && [ "$state" != Z ]; do sleep 0.03; done
    say dead
}
