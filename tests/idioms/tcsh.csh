# noclobber of tcsh: tcsh -f tcsh.csh ROLE
# A refused redirection ends a script, so each is in a subshell. $$ is the script's pid there too.
set noclobber
switch ($1)
case hold:
    ( echo $$ > x ) || exit $status
    echo held
    set line = "$<"
    rm x || exit $status
    echo released
    set line = "$<"
    breaksw
case try:
    ( echo $$ > x ) || exit $status
    rm x
    breaksw
case wait:
    ( echo $$ > x )
    if ($status == 0) exit 0
    echo busy
    while (1)
        ( echo $$ > x ) >& /dev/null
        if ($status == 0) break
        sleep 0.01
    end
    echo got
    rm x
    breaksw
endsw
