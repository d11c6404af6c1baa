# A lock that is taken by the shell line $TAKE and given back by the line $GIVE, in any POSIX shell:
# SHELL posix.sh ROLE
take() { eval "$TAKE"; }
give() { eval "$GIVE"; }

case $1 in
hold)
    take || exit
    echo held
    read -r line
    give || exit
    echo released
    # The holder lives on: what frees the name is the release.
    read -r line
    ;;
try)
    take || exit
    give
    ;;
wait)
    ! take || exit 0
    echo busy
    until take 2> /dev/null; do sleep 0.01; done
    echo got
    give
    ;;
esac
