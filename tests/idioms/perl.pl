# Locks of Perl: perl perl.pl LIBRARY ROLE
use strict;
use warnings;
use Fcntl qw(O_CREAT O_EXCL O_WRONLY);

$| = 1;
my ($library, $role) = @ARGV;

# Each is a function that takes the lock, or says why not and returns false, and one that gives it
# back.
my %libraries = (
    sysopen => sub {
        my $take = sub { sysopen(my $file, 'x', O_CREAT | O_EXCL | O_WRONLY) or (warn("x: $!\n"), 0) };
        return ($take, sub { unlink('x') or die "x: $!\n" });
    },
    'LockFile::Simple' => sub {
        require LockFile::Simple;
        # The answer of trylock to a lock that is held is undef, without a word.
        my $locks = LockFile::Simple->make();
        my $take = sub { $locks->trylock('x') or (warn("already locked\n"), 0) };
        return ($take, sub { $locks->unlock('x') or die "not unlocked\n" });
    },
);

my ($take, $give) = $libraries{$library}->();
if ($role eq 'hold') {
    $take->() or exit 1;
    print "held\n";
    readline STDIN;
    $give->();
    print "released\n";
    # The holder lives on: what frees the name is the release.
    readline STDIN;
} elsif ($role eq 'try') {
    $take->() or exit 1;
    $give->();
} elsif ($role eq 'wait') {
    exit 0 if $take->();
    print "busy\n";
    # LockFile::Simple waits whole seconds between two attempts of its own.
    local $SIG{__WARN__} = sub { };
    select(undef, undef, undef, 0.01) until $take->();
    print "got\n";
    $give->();
}
