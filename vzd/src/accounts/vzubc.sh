#!/bin/sh
# vzubc: shows the beancounters of this container, from the files beside it. Needs a POSIX shell and nothing else
# (sleep for -w). On the host, vzubc(8) shows those of every container.

usage() {
    echo 'Usage: vzubc [options]
Show the beancounters of this container.
  -q, --quiet        only those that were refused something or are near a limit
  -qh RATIO          what is near for what is held (0.5)
  -qm RATIO          what is near for what was held at most (0.8)
  -v, --verbose      with unit, class and what is to be said about it
  -w, --watch        show again every 2 seconds, or every so many with -wn SECONDS
  -r, --relative     show how much the fail counts have risen since the last -r
  -rd FILE           where -r remembers them (/run/vzubc.fails)
  -rc                forget them first
  -c, --color        colour what was refused or is near a limit
  -f, --file FILE    read this text instead of /run/vz/resources'
}

bad() {
    echo "vzubc: $1" >&2
    echo "Try 'vzubc --help'." >&2
    exit 1
}

# A ratio as percent, in $percent.
ratio() {
    case $1 in
    '' | *[!0-9.]* | *.*.*) bad "'$1' is no ratio like 0.8" ;;
    *.*) whole=${1%%.*} part=${1#*.}00 ;;
    *) whole=$1 part=00 ;;
    esac
    while [ ${#part} -gt 2 ]; do part=${part%?}; done
    percent=${whole:-0}$part
    while [ ${#percent} -gt 1 ] && [ "${percent#0}" != "$percent" ]; do percent=${percent#0}; done
}

dir=/run/vz file= quiet= verbose= relative= colour= watch= clear= near_held=50 near_max=80 fails=/run/vzubc.fails
unlimited=9223372036854775807
[ -t 1 ] && colour=1

while [ $# -gt 0 ]; do
    case $1 in
    -qh | -qm | -wn | -rd | -f | --file) [ $# -ge 2 ] || bad "$1 wants a value" ;;
    esac
    case $1 in
    -h | --help) usage; exit 0 ;;
    -q | --quiet) quiet=1 ;;
    -v | --verbose) verbose=1 ;;
    -c | --color) colour=1 ;;
    -r | --relative) relative=1 ;;
    -rc) clear=1 ;;
    -w | --watch | -wd | -wt) watch=${watch:-2} ;;
    -qh) ratio "$2"; near_held=$percent; shift ;;
    -qm) ratio "$2"; near_max=$percent; shift ;;
    -wn) watch=$2; shift ;;
    -rd) fails=$2; shift ;;
    -f | --file) file=$2; shift ;;
    -[qvcrw][qvcrw]*)
        # Several letters at once.
        rest=${1#-?}
        first=${1%"$rest"}
        shift
        set -- - "$first" "-$rest" "$@"
        ;;
    -*) bad "there is no option $1" ;;
    *) asked=$1 ;;
    esac
    shift
done
case $watch in *[!0-9]*) bad "'$watch' is no number of seconds" ;; esac

own=
[ -r $dir/user_beancounters ] && while read -r first rest; do
    case $first in [0-9]*:) own=${first%:}; break ;; esac
done <$dir/user_beancounters
if [ -n "$asked" ] && [ "$asked" != "$own" ]; then bad "this is CT $own; others are only seen on the host"; fi
file=${file:-$dir/resources}
[ -r "$file" ] || bad "cannot read $file"
[ -n "$clear" ] && rm -f "$fails"

# The unit of a counter, in $unit.
unit_of() {
    case $1 in
    *pages) unit=pages ;;
    num*) unit=items ;;
    *) unit=bytes ;;
    esac
}

# A figure of counter $unit in at most five characters, in $shown.
short() {
    n=$1 shown=-
    [ "$n" = $unlimited ] || [ "$n" = 0 ] && return
    step=1024 tenth=0 suffixes='K M G T P E'
    case $unit in
    pages) if [ "$n" -gt 2251799813685247 ]; then n=$((n / 256)) suffixes='G T P E'; shown=${n}M; else n=$((n * 4096)); fi ;;
    items) [ "$n" -lt 100000 ] && shown=$n && return; step=1000 ;;
    esac
    [ "$shown" = - ] && shown=$n
    for s in $suffixes; do
        [ "$n" -ge 1000 ] || break
        tenth=$((n % step * 10 / step)) n=$((n / step))
        if [ "$n" -lt 10 ]; then shown=$n.$tenth$s; else shown=$n$s; fi
    done
}

# $1 in percent of $2, in $share; as a number in $whole, -1 where that makes no sense.
share() {
    share=- whole=-1
    [ "$2" = $unlimited ] || [ "$2" = 0 ] && return
    if [ "$1" -gt 9223372036854775 ]; then whole=$(($1 / ($2 / 100 + 1))); else whole=$(($1 * 100 / $2)); fi
    if [ $whole -gt 99999 ]; then share='>999'; elif [ $whole -gt 999 ]; then share=$((whole / 100))x; elif [ $whole -ge 10 ]; then share=$whole%; else
        tenths=$(($1 * 1000 / $2))
        share=$((tenths / 10)).$((tenths % 10))%
    fi
}

# Class and remark of a counter, in $class and $note.
class_of() {
    class= note=
    [ -r $dir/classes ] && while IFS='	' read -r name class note; do
        [ "$name" = "$1" ] && return
    done <$dir/classes
    class= note=
}

# $1 and the text $2 in lines of $columns characters, folded between words.
fold() {
    line=$1 fresh=1 shown=
    set -f
    for word in $2; do
        if [ -z "$fresh" ] && [ $((${#line} + ${#word} + 1)) -gt $columns ]; then
            shown="$shown$line
" line='               ' fresh=1
        fi
        if [ "$fresh$line" = "1$1" ]; then line=$line$word; else line="$line $word"; fi
        fresh=
    done
    set +f
    shown=$shown$line
}

screen() {
    columns=
    [ -t 1 ] && { columns=$(stty size <&3 2>/dev/null); } 3>&1
    columns=${columns#* }
    case $columns in '' | 0 | *[!0-9]*) columns=100 ;; esac
    [ "$columns" -lt 80 ] && columns=80
    before=' '
    if [ -n "$relative" ] && [ -r "$fails" ]; then
        while read -r name count; do before="$before$name=$count "; done <"$fails"
    fi
    now=
    titles=' FAIL | CLASS'
    [ -n "$relative" ] && titles='+FAIL | CLASS'
    [ -n "$verbose" ] && titles="${titles% CLASS} UNIT  CLASS"
    head=
    while read -r name held maxheld barrier limit failcnt; do
        case $name in '' | dummy | uid | Version:) continue ;; *:) name=$held held=$maxheld maxheld=$barrier barrier=$limit limit=${failcnt%% *} failcnt=${failcnt##* } ;; esac
        case $held$maxheld$barrier$limit$failcnt in '' | *[!0-9]*) continue ;; esac
        now="$now$name $failcnt
"
        if [ -n "$relative" ]; then
            old=0
            case $before in *" $name="*) old=${before#*" $name="} old=${old%% *} ;; esac
            case $old in '' | *[!0-9]*) old=0 ;; esac
            # A count that fell was reset.
            [ "$failcnt" -ge "$old" ] && failcnt=$((failcnt - old))
        fi
        unit_of "$name"
        share "$held" "$barrier"; hb=$share hbn=$whole
        share "$held" "$limit"; hl=$share hln=$whole
        share "$maxheld" "$barrier"; mb=$share mbn=$whole
        share "$maxheld" "$limit"; ml=$share mln=$whole
        guarantee=
        case $name in *guarpages) guarantee=1 ;; esac
        trouble= tint=
        if [ "$failcnt" -gt 0 ]; then
            trouble=1 tint=31
        elif [ -z "$guarantee" ]; then
            if [ $hbn -ge $near_held ] || [ $hln -ge $near_held ] || [ $mbn -ge $near_max ] || [ $mln -ge $near_max ]; then trouble=1; fi
            if [ $hln -ge 90 ]; then tint=31; elif [ $mln -ge 90 ]; then tint=33; fi
        fi
        [ -n "$quiet" ] && [ -z "$trouble" ] && continue
        if [ -z "$head" ]; then
            head=1
            echo '--------------------------------------------------------------------------'
            printf 'CT %-11s| HELD Bar%% Lim%%| MAXH Bar%% Lim%%| BAR | LIM |%s\n' "$own" "$titles"
            echo '--------------+---------------+---------------+-----+-----+------+--------'
        fi
        short "$held"; h=$shown
        short "$maxheld"; m=$shown
        short "$barrier"; b=$shown
        short "$limit"; l=$shown
        fail=-
        [ "$failcnt" -gt 0 ] && { u=$unit unit=items; short "$failcnt"; fail=$shown unit=$u; }
        class_of "$name"
        end=$class
        [ -n "$verbose" ] && end="$(printf '%-5s' $unit) $class${note:+: $note}"
        fold "$(printf '%14s|%5s%5s%5s|%5s%5s%5s|%5s|%5s|%5s | ' "$name" "$h" "$hb" "$hl" "$m" "$mb" "$ml" "$b" "$l" "$fail")" "$end"
        if [ -n "$tint" ] && [ -n "$colour" ]; then printf '\033[%sm%s\033[0m\n' $tint "$shown"; else printf '%s\n' "$shown"; fi
    done <"$file"
    if [ -n "$relative" ]; then
        { printf %s "$now" >"$fails"; } 2>/dev/null || bad "cannot remember the fail counts in $fails; choose a file with -rd"
    fi
}

if [ -z "$watch" ]; then
    screen
    exit 0
fi
while :; do
    printf '\033[H\033[2J'
    screen
    sleep "${watch:-2}" || exit 0
done
