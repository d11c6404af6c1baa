# Shared by the scripts claims-*. They source it from their own directory.
#
# It takes '--mount DIR' and '--read-only' from the front of the arguments and finds the mount as
# the claimfs command does: --mount, else $CLAIMFS_MOUNT, else the only claimfs there is; for root
# other users' do not count. The rest must be 'OPTIONS -- COMMAND'. Each script sets $usage and
# $operands, the number of words that must come after the '--'. Exit codes: 2 usage, 3 no mount.

complain() {
    printf '%s: %s\n' "${0##*/}" "$1" >&2
}

wrong_usage() {
    printf 'usage: %s\n' "$usage" >&2
    exit 2
}

mount=${CLAIMFS_MOUNT:-}
read_only=
while :; do
    case ${1-} in
    --mount)
        [ $# -ge 2 ] || wrong_usage
        mount=$2
        shift 2
        ;;
    --mount=*) mount=${1#*=} && shift ;;
    --read-only) read_only=yes && shift ;;
    -h | --help)
        printf 'usage: %s\n' "$usage"
        exit 0
        ;;
    *) break ;;
    esac
done
left=$#
for word; do
    left=$((left - 1))
    [ "$word" != -- ] || break
done
[ "${word-}" = -- ] && [ "$left" -ge "$operands" ] || wrong_usage

if [ -z "$mount" ]; then
    # proc(5): ID PARENT DEVICE ROOT DIR OPTIONS [TAG …] - TYPE SOURCE OPTIONS. Only whole mounts
    # count, of the same file system one, and of several only those that admit the caller.
    count=0 found= seen=' '
    is_root=no
    if [ "$(id -u)" = 0 ] && read -r inside outside uids < /proc/self/uid_map; then
        [ "$inside $outside $uids" != '0 0 4294967295' ] || is_root=yes
    fi
    while read -r _ _ device root dir rest; do
        case "$root ${rest#* - }" in
        '/ fuse.claimfs '*) ;;
        *) continue ;;
        esac
        case "$is_root $rest" in
        'yes '*,user_id=0,*) ;;
        'yes '*) continue ;;
        esac
        # White space is encoded as octal digits after a backslash, which printf decodes; the x
        # keeps a newline at the end.
        dir=$(printf "$(printf '%s' "$dir" | sed 's/%/%%/g')x")
        dir=${dir%x}
        case $(LC_ALL=C ls -d -- "$dir/." 2>&1) in
        *': Permission denied') mount=${mount:-$dir} && continue ;;
        *': No such file or directory') continue ;; # Another mount hides it.
        esac
        case $seen in
        *" $device "*) continue ;;
        esac
        seen="$seen$device "
        found=$dir count=$((count + 1))
    done < /proc/self/mountinfo
    if [ "$count" -gt 1 ] || [ -z "$mount$found" ]; then
        complain "$count claimfs are mounted here; name one with --mount DIR or \$CLAIMFS_MOUNT"
        exit 3
    fi
    mount=${found:-$mount}
fi
case $(LC_ALL=C ls -d -- "$mount/." 2>&1) in
*': Permission denied')
    complain "$mount: Permission denied: another user's mount, or in a directory that is closed to you; name another with --mount DIR"
    exit 3
    ;;
esac
if [ ! -d "$mount/claims" ] || [ ! -e "$mount/leases" ]; then
    complain "$mount: not a claimfs mount; name one with --mount DIR, or mount one with 'claimfs mount'"
    exit 3
fi
mount=$(CDPATH='' cd -P -- "$mount" && pwd -P) || exit 3

need() { # TOOL PACKAGE
    command -v "$1" > /dev/null || {
        complain "$1 is not installed (package $2)"
        exit 3
    }
}

# Runs first in new mount and pid namespaces: sh -c "$become" NAME ROOT MOUNT READ_ONLY COMMAND … It
# builds a root on a tmpfs from the entries of ROOT, with its own /proc and the mount at /claims,
# and moves in. So nothing is written to ROOT, and all of it goes with the namespaces. The tmpfs is
# mounted over /proc, which is not needed meanwhile.
become='
set -eu
root=$1 mount=$2 read_only=$3
shift 3
mount --make-rprivate /
mount -t tmpfs -o mode=755,nosuid,nodev claims /proc
cd "$root"
for entry in * .[!.]*; do
    case $entry in
    proc | claims) continue ;;
    esac
    if [ -h "./$entry" ]; then
        cp -P "./$entry" /proc/
    elif [ -d "./$entry" ]; then
        mkdir "/proc/$entry"
        mount --rbind "./$entry" "/proc/$entry"
    elif [ -e "./$entry" ]; then
        : > "/proc/$entry"
        mount --bind "./$entry" "/proc/$entry"
    fi
done
cd /proc
mkdir -p dev proc claims
[ -e dev/null ] || mount --rbind /dev dev
mount -t proc proc proc
# Remount only if necessary: in a user namespace the remount has to repeat the flags, and elsewhere
# it would drop nosymfollow.
mount -o "bind${read_only:+,ro,nosuid,nodev,nosymfollow}" "$mount" claims
[ "$root" = / ] || exec chroot . "$@"
# Unlike after chroot(8), the command can make its own user namespaces, and so sandboxes.
mkdir .old
pivot_root . .old
umount -l .old
rmdir .old
exec "$@"
'
