;; Emacs's lock of a file that is being edited: emacs -Q --batch -l emacs.el ROLE  -*- lexical-binding: t -*-

(defun idiom-say (word)
  ;; Unlike `princ', this does not wait for more to print.
  (send-string-to-terminal (concat word "\n")))

(defun idiom-take ()
  ;; The first change to a buffer locks the file that it visits.
  (with-current-buffer (find-file-noselect "x")
    (insert "a change")))

;; Any other error than that somebody else has the lock goes through.
(defun idiom-try ()
  (condition-case problem
      (progn (idiom-take) t)
    (error (unless (string-match-p "Cannot resolve lock conflict" (error-message-string problem))
             (signal (car problem) (cdr problem))))))

(defun idiom-give ()
  (with-current-buffer (find-file-noselect "x")
    (set-buffer-modified-p nil)))

(setq create-lockfiles t
      make-backup-files nil
      auto-save-default nil)

(pcase (pop command-line-args-left)
  ("hold"
   (idiom-take)
   (idiom-say "held")
   (read-from-minibuffer "")
   (idiom-give)
   (idiom-say "released")
   ;; The holder lives on: what frees the name is the release.
   (ignore-errors (read-from-minibuffer "")))
  ("try"
   ;; The error that says busy is the answer.
   (idiom-take)
   (idiom-give))
  ("wait"
   (if (idiom-try) (kill-emacs 0))
   (idiom-say "busy")
   (while (not (idiom-try)) (sleep-for 0.01))
   (idiom-say "got")
   (idiom-give)))
