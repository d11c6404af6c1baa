# git's lock of a ref: sh git.sh ROLE
# refs/locks of a repository elsewhere is the directory of the locks, so that git makes x.lock there
# and renames it to x.
export GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL=/dev/null GIT_DIR="$SCRATCH/repository"
if ! [ -d "$GIT_DIR" ]; then
    git init -q --bare "$GIT_DIR" || exit
    ln -s "$(pwd -P)" "$GIT_DIR/refs/locks" || exit
fi
object=$(git hash-object -w --stdin < /dev/null) || exit
take() { git -c core.filesRefLockTimeout="$1" update-ref refs/locks/x "$object"; }
give() { git update-ref -d refs/locks/x; }

case $1 in
hold)
    # A transaction that is prepared holds the lock until it is committed or aborted.
    {
        printf 'start\nupdate refs/locks/x %s\nprepare\n' "$object"
        read -r line <&3
        echo abort
        read -r line <&3
    } 3<&0 | git -c core.filesRefLockTimeout=0 update-ref --stdin | while read -r answer; do
        case $answer in
        'prepare: ok') echo held ;;
        'abort: ok') echo released ;;
        esac
    done
    ;;
try)
    take 0 || exit
    give
    ;;
wait)
    ! take 0 || exit 0
    echo busy
    # It tries again by itself, after 1 ms and then less and less often.
    take 20000 || exit
    echo got
    give
    ;;
esac
