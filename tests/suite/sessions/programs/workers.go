// A master and its workers in Go: what came of each step, a line each, as workers.py prints it.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
)

const claim = "claims/x"

func outcome(err error) string {
	var errno syscall.Errno
	switch {
	case err == nil:
		return "done"
	case errors.As(err, &errno) && errno == syscall.EEXIST:
		return "EEXIST"
	case errors.As(err, &errno) && errno == syscall.EBUSY:
		return "EBUSY"
	}
	return err.Error()
}

func take() string {
	file, err := os.OpenFile(claim, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err == nil {
		err = file.Close()
	}
	return outcome(err)
}

func drop() string { return outcome(os.Remove(claim)) }

func holder() int {
	leases, _ := os.ReadFile("leases")
	for _, line := range strings.Split(string(leases), "\n") {
		var record struct {
			Name string
			Pid  int
		}
		if json.Unmarshal([]byte(line), &record) == nil && record.Name == "x" {
			return record.Pid
		}
	}
	return 0
}

type worker struct {
	command *exec.Cmd
	asks    io.WriteCloser
	answers *bufio.Scanner
}

func start() worker {
	command := exec.Command(os.Args[0], "worker")
	asks, _ := command.StdinPipe()
	answers, _ := command.StdoutPipe()
	if err := command.Start(); err != nil {
		panic(err)
	}
	return worker{command, asks, bufio.NewScanner(answers)}
}

func (w worker) ask(call string) string {
	fmt.Fprintln(w.asks, call)
	w.answers.Scan()
	return w.answers.Text()
}

func (w worker) holds() bool { return holder() == w.command.Process.Pid }

// The worker exits at the end of what it is asked.
func (w worker) exit() {
	w.asks.Close()
	w.command.Wait()
}

func title(is bool) string {
	if is {
		return "True"
	}
	return "False"
}

func main() {
	if os.Args[1] == "worker" {
		calls := map[string]func() string{"take": take, "drop": drop}
		for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
			fmt.Println(calls[lines.Text()]())
		}
		return
	}
	first, second, third := start(), start(), start()
	fmt.Println("first", first.ask("take"), title(first.holds()))
	fmt.Println("second", second.ask("take"), second.ask("drop"))
	fmt.Println("master", take(), drop())
	first.command.Process.Kill()
	first.command.Wait()
	fmt.Println("second", second.ask("take"), title(second.holds()))
	fmt.Println("third", third.ask("take"), third.ask("drop"))
	second.exit()
	fmt.Println("master", title(holder() == os.Getpid()))
	fmt.Println("third", third.ask("take"))
	fmt.Println("master", take(), drop())
	third.exit()
}
