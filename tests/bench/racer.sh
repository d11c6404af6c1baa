# A racer, or a holder that dies, of race.rs: SHELL racer.sh noclobber|pidfile
set -C

# Creates $name with a body. 1: somebody else has it. 2: what went wrong is in $text.
create() {
    { echo "$1" > "$name"; } 2>| "$RACER_ERRORS" && return
    read -r text < "$RACER_ERRORS"
    case $text in *'File exists' | *'existing file') return 1 ;; esac
    return 2
}

take_noclobber() {
    create ''
}

# The usual takeover, in its careful form: a file that is empty is one that is just being written,
# not a stale one.
take_pidfile() {
    create $$
    held=$?
    [ $held = 1 ] || return $held
    pid=
    { read -r pid < "$name"; } 2> /dev/null
    if [ -n "$pid" ]; then
        kill -0 "$pid" 2> /dev/null && return 1
        rm -f "$name" 2> /dev/null
    fi
    create $$
}

if [ "$RACER_ROLE" = hold ]; then
    name=$RACER_NAME
    "take_$1" && kill -9 $$
    exit 1
fi
echo ready >&0
while read -r gate name patience; do
    echo at >&0
    : < "$gate"
    "take_$1"
    held=$?
    case $held in 0) echo won ;; 1) echo lost ;; *) echo "failed: $text" ;; esac >&0
    read -r end
    [ $held != 0 ] || rm -f "$name"
    echo ended >&0
done
